"""Kernels of an exported package, run in Triton's interpreter, which needs no GPU.

Triton decides at its import whether it interprets. A process in which it does not gets a child in which it does.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import math
import os
import pathlib
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ..python import load_package

FORM = "kernel_"
"""How the names of kernels begin, among the forms of phases."""
_SWITCH = "TRITON_INTERPRET"
MOST_ROWS = {"chunks": 12, "tensors": None, "tiles": 1}
"""Rows of a case that are run. A chunk or a tile is an instance of a kernel, which takes tens of milliseconds."""

Arrays = dict[str, np.ndarray]


def can_interpret() -> bool:
    """Whether Triton is here, so that kernels can be verified."""
    return importlib.util.find_spec("triton") is not None


class Interpreter:
    """Runs the kernels of a package.

    **Arguments:**

    - `folder`: that of the package.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._child: subprocess.Popen[bytes] | None = None
        self._package: ModuleType | None = None

    def run(self, name: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """The outputs of a phase, as its kernel computes them."""
        if os.environ.get(_SWITCH) == "1":
            self._package = self._package or load_package(self.folder)
            # NumPy, which the interpreter calculates with, warns of what is not a number.
            with warnings.catch_warnings(), _patched_once():
                warnings.simplefilter("ignore", RuntimeWarning)
                return run_kernel(self._package, name, inputs)
        if self._child is None:
            # What the child imports must be this very package.
            paths = os.pathsep.join(filter(None, [str(pathlib.Path(__file__).parents[3]), *sys.path]))
            self._child = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", __name__, str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, _SWITCH: "1", "PYTHONPATH": paths},
            )
        assert self._child.stdin is not None and self._child.stdout is not None
        pickle.dump((name, dict(inputs)), self._child.stdin)
        self._child.stdin.flush()
        return pickle.load(self._child.stdout)

    def close(self) -> None:
        """Ends the child."""
        if self._child is not None:
            self._child.communicate()
            self._child = None

    def __del__(self) -> None:
        self.close()


@contextlib.contextmanager
def _patched_once() -> Iterator[None]:
    """Has Triton's language patched once in each launch for all functions of a module.

    The interpreter (3.2 to 3.9) patches the language again at each call of a function within a kernel, which takes
    longer than the call.
    """
    from triton.runtime import interpreter

    patch: Any = getattr(interpreter, "_patch_lang", None)
    if patch is None:
        yield
        return
    modules: set[int] = set()

    def patch_once(function: Any) -> Any:
        module = id(function.__globals__)
        if module in modules:
            return None
        modules.add(module)
        scope = patch(function)
        if hasattr(scope, "restore"):
            # The launch ends with this, and the language is as it was.
            restore = scope.restore
            scope.restore = lambda: (modules.clear(), restore())
        return scope

    setattr(interpreter, "_patch_lang", patch_once)
    try:
        yield
    finally:
        setattr(interpreter, "_patch_lang", patch)


def run_kernel(package: ModuleType, name: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """The outputs of a phase, of which each row is a tensor of its own."""
    import torch

    launch: Any = importlib.import_module(f"{package.__name__}._launch")
    parts: Any = importlib.import_module(f"{package.__name__}._parts")
    partition: Any = importlib.import_module(f"{package.__name__}._partition")
    phases: Any = package._phases
    (phase,) = (each for each in launch.PHASES if each.name == name)
    rows = len(next(iter(inputs.values())))
    given = {key: torch.tensor(value) for key, value in inputs.items()}
    shape = tuple(given["grad"].shape[1:]) if "grad" in given else (phases.CHUNK_LENGTH,)
    role = "matrix" if phase.rows == "tiles" else "vector"
    facts = [parts.Facts(shape, "", role, row) for row in range(rows)]
    here = [shape] * rows
    cpu = torch.device("cpu")
    cut = partition.Partition(facts, here, phases.CHUNK_LENGTH, phases.CHUNK_LENGTH, False, cpu, torch.float32)
    launcher = launch.Launcher(cut, facts, here, cpu)
    # A row is one tile, whatever its size.
    launcher.matrices = [each and each._replace(tiling=_whole(each.tiling)) for each in launcher.matrices]
    zeros = torch.zeros(rows, *shape)
    arrays = {key: given[key].clone() if key in given else zeros.clone() for key in ("param", "grad")}
    for slot in phases.MEMORY:
        array = given.get(f"memory.{slot.name}", torch.zeros(rows, *slot.tensor_shape(shape, phases.CHUNK_LENGTH)))
        arrays[f"memory.{slot.name}"] = array.to(getattr(torch, slot.dtype))
    offsets = np.cumsum([0, *(math.prod(size) for size in phases.STATE.values())])
    states = torch.zeros(rows, int(offsets[-1]))
    spans = {f"state.{key}": slice(*span) for key, span in zip(phases.STATE, zip(offsets, offsets[1:]), strict=False)}
    for key, value in given.items():
        if key in spans:
            states[:, spans[key]] = value.reshape(rows, -1)
        elif key in launch.OPTIONS:
            launcher.options[launch.OPTIONS[key][0]] = value
        elif key in launcher.views:
            launcher.views[key].copy_(value)
    launcher.refresh({key: list(value) for key, value in arrays.items()}, list(states) if phases.STATE else [])
    if phase.rows == "tensors":
        launcher.run_tensors(name)
    elif phase.rows == "tiles":
        return _run_tiles(launch, launcher, phase, given, arrays)
    elif phase.reduce == "tensor":
        launcher.sum_chunks(name, torch.zeros((), dtype=torch.int64))
    else:
        launcher.update_chunks(name)
    outputs = {**arrays, **launcher.views}
    outputs.update((key, states[:, span].reshape(rows, *phases.STATE[key[6:]])) for key, span in spans.items())
    return {key: value.float().numpy() for key, value in outputs.items()}


def _whole(tiling: Any) -> Any:
    """The matrix as one tile."""
    return dataclasses.replace(tiling, tile=tiling.sizes[1:])


def _run_tiles(launch: Any, launcher: Any, phase: Any, given: Mapping[str, Any], arrays: Mapping[str, Any]) -> Arrays:
    """A phase over tiles alone: the one that gives directions, or the one that reads them."""
    import torch

    rows, height, width = arrays["param"].shape
    tall, wide = launcher.tiled[0].form.tile
    between = torch.zeros(rows, tall, wide)
    if "direction" in given:
        between[:, :height, :width] = given["direction"]
    else:
        between[:, 0, 0] = given["tile.side"]
    launcher.update_tiles(launch.kernel_precision("float32"), 2 if "direction" in given else 1, between)
    outputs = {**arrays, "direction": between[:, :height, :width]}
    return {key: value.float().numpy() for key, value in outputs.items()}


def _serve(folder: pathlib.Path) -> None:
    """Runs kernels for a parent until it closes the pipe."""
    interpreter = Interpreter(folder)
    while True:
        try:
            name, inputs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(interpreter.run(name, inputs), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve(pathlib.Path(sys.argv[1]))
