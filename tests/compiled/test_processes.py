"""Processes share packages: the second loads what the first has verified, and what one pickles another unpickles."""

import os
import pathlib
import pickle
import subprocess
import sys

import pytest
import torch

import mnemo_compile as mnemo
from mnemo_compile.frozen import FrozenCell, save

SECOND = """
import sys, torch, mnemo_compile as mnemo
Mnemosyne = mnemo.to_torch(sys.argv[1])
assert not {"jax", "mnemo_compile.exporters", "mnemo_compile.verify"} & set(sys.modules)
param = torch.nn.Parameter(torch.ones(50))
optimizer = Mnemosyne([param], total_steps=9)
param.grad = torch.ones(50)
optimizer.step()
print(optimizer.param_groups[0]["cell"]["name"])
"""

SPAWNING = """
import multiprocessing, pickle, sys
from concurrent.futures import ProcessPoolExecutor

def stepped(kind, data):
    optimizer = pickle.loads(data)
    assert type(optimizer) is kind
    (param,) = optimizer.param_groups[0]["params"]
    param.grad = param.detach().cos()
    optimizer.step()
    return param.tolist()

if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        optimizer = pickle.load(file)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(stepped, type(optimizer), pickle.dumps(optimizer)).result()
    assert there == stepped(type(optimizer), pickle.dumps(optimizer))
    print(*there)
"""

AT_ONCE = """
import pickle, sys, jax.numpy as jnp, mnemo_compile as mnemo
from mnemo_compile.verify import Reference
Reference.__init__.__kwdefaults__["steps"] = 6
state = mnemo.to_optax(sys.argv[1])().init({"w": jnp.ones(50)})
print(type(pickle.loads(pickle.dumps(state))) is type(state))
"""


@pytest.fixture
def bundle(frozen: FrozenCell, tmp_path: pathlib.Path) -> pathlib.Path:
    """The bundle of the cell whose package is in the cache."""
    folder = tmp_path / "bundle"
    save(frozen, folder)
    return folder


def start(code: str, argument: pathlib.Path) -> subprocess.Popen[str]:
    """Starts a process that runs code from a file, because processes that it spawns read it too."""
    script = argument.parent / "script.py"
    script.write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(mnemo.__file__).parents[1])}
    command = [sys.executable, str(script), str(argument)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def printed(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process prints on stdout and on stderr, if it ends well."""
    out, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    return out.strip(), error


@pytest.mark.usefixtures("address")
def test_a_second_process_neither_verifies_nor_imports_jax(bundle: pathlib.Path) -> None:
    assert printed(start(SECOND, bundle)) == ("cached-adam", "")


@pytest.mark.usefixtures("address")
def test_an_optimizer_is_unpickled_by_other_processes(frozen: FrozenCell, tmp_path: pathlib.Path) -> None:
    param = torch.nn.Parameter(torch.linspace(-1, 1, 50))
    optimizer = mnemo.to_torch(frozen)([param], total_steps=9)
    for step in range(2):
        if step == 1:
            (tmp_path / "optimizer").write_bytes(pickle.dumps(optimizer))
        param.grad = param.detach().cos()
        optimizer.step()
    out, error = printed(start(SPAWNING, tmp_path / "optimizer"))
    assert [float(number) for number in out.split()] == param.tolist()
    assert error == ""


def test_of_two_processes_at_once_one_compiles(bundle: pathlib.Path) -> None:
    processes = [start(AT_ONCE, bundle) for _ in range(2)]
    outs, errors = zip(*map(printed, processes), strict=True)
    assert outs == ("True", "True")
    line = "compiling cached-adam 1.2.3 for optax and verifying it; this is done once\n"
    assert sorted(errors) == ["", line]
