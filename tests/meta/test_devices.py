"""A run on several devices, and in several processes, is the same run."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mnemo_compile.errors import MnemoError
from mnemo_compile.frozen import load_bundle
from mnemo_compile.meta import _processes, Place

QUICK = """
[cell]
kind = "lstm"
hidden = 2

[inner]
tasks = 16
truncation = 2
shortest = 4
longest = 8

[outer]
validate_every = 5

[[families]]
kind = "quadratic"
dimension = 5
rotated = false

[validation]
tasks = 4
steps = 4

[[validation.families]]
kind = "quadratic"
dimension = 4
rotated = false
"""
STEPS = 12
CHECKPOINTS = ("--set", "checkpoint_seconds=0")


@pytest.fixture
def quick(tmp_path: pathlib.Path) -> pathlib.Path:
    """A configuration that compiles in seconds."""
    path = tmp_path / "quick.toml"
    path.write_text(QUICK)
    return path


def start(
    config: pathlib.Path, out: pathlib.Path, devices: int, *more: str, optimized: bool = False
) -> subprocess.Popen[str]:
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": str(not optimized),
    }
    command = [sys.executable, "-m", "mnemo_compile", "meta-train", str(config), "--out", str(out), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def start_pair(config: pathlib.Path, out: pathlib.Path, devices: int, *more: str) -> list[subprocess.Popen[str]]:
    """Two processes with so many devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        start(config, out, devices, *more, "--coordinator", where, "--processes", "2", "--process", str(process))
        for process in range(2)
    ]


def messages_of(*processes: subprocess.Popen[str], code: int = 0) -> list[str]:
    """What they said, when all have ended with this code."""
    messages = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), messages
    return messages


def objectives(out: pathlib.Path) -> list[list[float]]:
    path = out / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [list(record["objective"].values()) for record in records if "objective" in record]


def wait_for(process: subprocess.Popen[str], out: pathlib.Path, steps: int) -> None:
    while process.poll() is None and len(objectives(out)) < steps:
        time.sleep(0.005)


def assert_close(one: pathlib.Path, other: pathlib.Path) -> None:
    """The same run up to rounding."""
    np.testing.assert_allclose(objectives(one), objectives(other), rtol=1e-4, atol=1e-6)
    expected, weights = load_bundle(one / "bundle").weights, load_bundle(other / "bundle").weights
    assert expected.keys() == weights.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(weights[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def assert_same(one: pathlib.Path, other: pathlib.Path) -> None:
    """The same run to the bit."""
    assert objectives(one) == objectives(other)
    assert load_bundle(one / "bundle").digest == load_bundle(other / "bundle").digest


@pytest.mark.slow
def test_one_device_and_eight_and_two_processes_reach_the_same_weights(
    quick: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    one, eight, pair = (tmp_path / name for name in ("one", "eight", "pair"))
    messages_of(start(quick, one, 1, "--steps", str(STEPS)))
    (said,) = messages_of(start(quick, eight, 8, "--steps", str(STEPS)))
    assert "lie on 8 devices\n" in said
    assert_close(one, eight)
    first, second = messages_of(*start_pair(quick, pair, 4, "--steps", str(STEPS)))
    assert "lie on 8 devices\n" in first
    assert "the cell is in" in first and "the cell is in" not in second
    assert_close(one, pair)


@pytest.mark.slow
def test_killed_and_resumed_on_eight_devices(quick: pathlib.Path, tmp_path: pathlib.Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    messages_of(start(quick, whole, 8, "--steps", "60"))
    process = start(quick, cut, 8, "--steps", "60", *CHECKPOINTS)
    wait_for(process, cut, 20)
    process.kill()
    process.communicate()
    assert any(path.name.isdigit() for path in (cut / "checkpoints").iterdir()) and not (cut / "bundle").exists()
    messages_of(start(quick, cut, 8, "--steps", "60", "--resume"))
    assert_same(whole, cut)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["truncated", "persistent", "evolution", "imitation"])
def test_eight_devices_and_one_with_a_memory(config: pathlib.Path, tmp_path: pathlib.Path, kind: str) -> None:
    settings = (f"estimator.kind={kind}", "estimator.truncations=2", "inner.tasks=16", "validation.tasks=3")
    options = [part for setting in settings for part in ("--set", setting)]
    for devices in (1, 8):
        messages_of(start(config, tmp_path / str(devices), devices, "--steps", "6", *options, optimized=True))
    assert_close(tmp_path / "1", tmp_path / "8")


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(quick: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """However they stop: one of them is interrupted, or both are killed. To the bit, as the sum of two is no choice."""
    one, pair = tmp_path / "one", tmp_path / "pair"
    messages_of(start(quick, one, 2, "--steps", "60"))
    processes = start_pair(quick, pair, 1, "--steps", "60", *CHECKPOINTS)
    wait_for(processes[0], pair, 5)
    processes[1].send_signal(signal.SIGINT)
    first, _ = messages_of(*processes, code=130)
    assert "saved after meta-step" in first and "Traceback" not in first
    assert re.search(r"--resume --steps 60 .*--coordinator \S+ --processes 2 --process 0, and the other", first)

    processes = start_pair(quick, pair, 1, "--steps", "60", "--resume", *CHECKPOINTS)
    wait_for(processes[0], pair, len(objectives(pair)) + 5)
    for process in processes:
        process.kill()
        process.communicate()
    # One process goes on where two have stopped.
    messages_of(start(quick, pair, 2, "--steps", "60", "--resume"))
    assert_same(one, pair)


@pytest.mark.slow
def test_what_fails_in_the_first_process_ends_both(quick: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.txt").write_text("mine")
    processes = start_pair(quick, tmp_path / "taken", 1, "--steps", "2")
    (_, first), (_, second) = (process.communicate() for process in processes)
    assert [process.returncode for process in processes] == [2, 1]
    assert "holds other files" in first and "the first process of the run stopped" in second
    (said, _) = messages_of(*start_pair(quick, tmp_path / "odd", 1, "--set", "inner.tasks=3"), code=2)
    assert "2 processes cannot share 3 tasks or pairs of a family; make inner.tasks a multiple of 4" in said


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_processes, "MEETING_SECONDS", 0.3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(MnemoError, match=f"nobody listens at {where}.*start process 0 there"):
            _processes.join(Place(where, processes=2, process=1))
