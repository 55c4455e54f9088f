"""The onnx export runs in the oldest ONNX Runtime that knows its opset, and computes the same there."""

import os
import pathlib
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from mnemo_compile.exporters.onnx import OnnxExporter
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.program import compile_cell
from mnemo_compile.step import describe, ROLES
from mnemo_compile.verify import (
    AbstractExport,
    AbstractRollout,
    DRIFT_BOUND,
    Reference,
    ROUNDED_DRIFT_BOUND,
    ROUNDED_STEP_BOUND,
    STEP_BOUND,
    trajectory_errors,
)
from tests.cells import cell_of
from tests.interpreters import interpreters

OLDEST = {"3.8": "1.14.0", "3.9": "1.14.0", "3.10": "1.14.0", "3.11": "1.15.0", "3.12": "1.17.0", "3.13": "1.20.0"}
"""The oldest release for each Python; 1.14 is the first that knows opset 18."""
UNREACHABLE = ("Failed to establish a new connection", "Connection refused", "Read timed out", "NameResolutionError")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with the oldest release that can be had, and nothing else."""
    found = [(OLDEST[version], path) for version, path in interpreters(OLDEST).items()]
    release, path = min(found, key=lambda each: tuple(map(int, each[0].split("."))))
    folder = tmp_path_factory.mktemp("oldest")
    subprocess.run([path, "-m", "venv", str(folder)], check=True, capture_output=True)
    own = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    numpy = "numpy<2" if release < "1.19" else "numpy"
    install = [own, "-m", "pip", "install", "--disable-pip-version-check", f"onnxruntime=={release}", numpy]
    done = subprocess.run(install, capture_output=True, text=True, timeout=600)
    if done.returncode and any(reason in done.stderr for reason in UNREACHABLE):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    shown = subprocess.run([own, "-c", "import onnxruntime as o; print(o.__version__)"], capture_output=True, text=True)
    assert shown.stdout.strip() == release, shown.stderr
    return own


class Recorded(AbstractExport):
    """Parameters after each step that were computed elsewhere, by tensor."""

    def __init__(self, results: Sequence[np.ndarray]):
        self.results = results

    def forms(self, name: str) -> tuple[str, ...]:
        raise NotImplementedError

    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def start(
        self, params: Mapping[str, np.ndarray], *, lr: float, weight_decay: float, total_steps: int | None
    ) -> AbstractRollout:
        return _Replay(self.results)


class _Replay(AbstractRollout):
    def __init__(self, results: Sequence[np.ndarray]):
        self.steps = zip(*results, strict=True)

    def step(self, grads: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(next(self.steps))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mnemosyne", "levels", "tiled", "adam", "lstm"])
def test_the_oldest_runtime_takes_the_steps_of_the_cell(
    python: str, kind: str, freeze_small: Callable[..., FrozenCell], tmp_path: pathlib.Path
) -> None:
    cell = cell_of(kind)
    compiled = compile_cell(cell)
    OnnxExporter().emit(freeze_small(3), compiled, tmp_path)
    reference = Reference(cell, compiled)
    history = reference.trajectory
    task: dict[str, Any] = {}
    for i, (name, param) in enumerate(history.params.items()):
        task |= {f"param.{i}": param, f"role.{i}": ROLES.index(describe(param.shape, name=name).role)}
    task |= {f"grad.{i}": np.stack([grads[i] for grads in history.grads]) for i in range(len(history.params))}
    options = {**history.options, "count": len(history.params), "chunk_length": cell.chunk_length}
    np.savez(tmp_path / "task.npz", **task, **options)
    script = pathlib.Path(__file__).parent / "rollout.py"
    command = [python, "-I", str(script), str(tmp_path), str(tmp_path / "task.npz"), str(tmp_path / "out.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = np.load(tmp_path / "out.npz")
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        recorded = Recorded([results[f"{level}.{i}"] for i in range(len(history.params))])
        step_error, drift = trajectory_errors(recorded, history)
        assert step_error <= (ROUNDED_STEP_BOUND if reference.rounded else STEP_BOUND)
        assert drift <= (ROUNDED_DRIFT_BOUND if reference.rounded else DRIFT_BOUND)
