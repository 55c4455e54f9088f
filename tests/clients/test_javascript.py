"""A network trained in JavaScript, by onnxruntime-node, takes the steps of the cell."""

import json
import pathlib
import shutil
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

import mnemo_compile as mnemo
from mnemo_compile.exporters.onnx import OnnxExporter
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.program import compile_cell
from mnemo_compile.step.reference import init, layout_of
from tests.helpers import jitted_pack, jitted_step

CLIENT = pathlib.Path(__file__).parent / "javascript"
UNREACHABLE = ("ENOTFOUND", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EAI_AGAIN", "ENETUNREACH", "ENOTCACHED")
STEPS = 300
SHAPES = ((64, 12), (12,), (12, 10), (10,))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of the client, its one dependency installed."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("client")
    for file in CLIENT.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    # The package's script would fetch binaries for CUDA; those for the CPU are in the package.
    install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode and any(code in done.stderr for code in UNREACHABLE):
        pytest.skip("the registry of npm cannot be reached")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_a_network_trained_in_javascript_takes_the_steps_of_the_cell(
    client: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    frozen = mnemo.load("mnemosyne-tiny")
    OnnxExporter().emit(frozen, compile_cell(frozen.cell()), tmp_path)
    random = np.random.default_rng(0)
    images, labels = load_digits(return_X_y=True)
    params = [np.asarray(random.normal(size=shape) / np.sqrt(shape[0]), np.float32) for shape in SHAPES]
    task = {
        "inputs": (np.asarray(images)[:200] / 16).tolist(),
        "labels": np.asarray(labels)[:200].tolist(),
        "parameters": [{"shape": value.shape, "values": value.reshape(-1).tolist()} for value in params],
        "steps": STEPS,
    }
    (tmp_path / "task.json").write_text(json.dumps(task), encoding="utf-8")
    train = ["node", "train.mjs", str(tmp_path), str(tmp_path / "task.json"), str(tmp_path / "out.bin")]
    done = subprocess.run(train, cwd=client, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    losses = json.loads(done.stdout)
    assert len(losses) == STEPS and losses[0] > 2 and losses[-1] < 0.1

    record = np.fromfile(tmp_path / "out.bin", np.float32).reshape(STEPS, 2, -1)
    assert_takes_the_steps_of_the_cell(frozen, params, record)


def assert_takes_the_steps_of_the_cell(frozen: FrozenCell, params: list[np.ndarray], record: np.ndarray) -> None:
    """`record` holds gradients and parameters after the step, for each step."""
    cell = frozen.cell()
    layout = layout_of(cell, SHAPES)
    ends = np.cumsum([0, *layout.sizes])

    def split(flat: np.ndarray) -> list[np.ndarray]:
        return [flat[a:b].reshape(shape) for a, b, shape in zip(ends, ends[1:], SHAPES, strict=False)]

    hyper = {"lr": jnp.array(1.0), "weight_decay": jnp.array(0.0), "total_steps": jnp.array(float(STEPS))}
    packed, state = jitted_pack(layout, [jnp.asarray(value) for value in params]), init(cell, layout)
    before = true_before = np.concatenate([value.reshape(-1) for value in params])
    for grads, after in record:
        packed_grads = jitted_pack(layout, list(map(jnp.asarray, split(grads))))
        packed, state = jitted_step(cell, layout, packed, packed_grads, state, hyper)
        true_after = np.asarray(packed)[layout.valid]
        for a, b in zip(ends, ends[1:], strict=False):
            norm = np.linalg.norm(true_after[a:b])
            error = (after - before) - (true_after - true_before)
            assert np.linalg.norm(error[a:b]) <= 1e-5 * norm
            assert np.linalg.norm((after - true_after)[a:b]) <= 1e-3 * norm
        before, true_before = after, true_after
