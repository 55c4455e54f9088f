"""Any cell's update.onnx takes the steps that the cell takes, whatever the tensor and its gradients."""

import functools
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, HealthCheck, settings, strategies as st
from jaxtyping import Array

from mnemo_compile._layout import shape_facts
from mnemo_compile.artifact import FrozenCell
from mnemo_compile.cell import AbstractCell, cell_config, MemorySlot
from mnemo_compile.exporters import _onnx_graphs
from mnemo_compile.exporters.onnx import OnnxExporter
from mnemo_compile.program import compile_cell
from tests.helpers import learned_cell, trajectory

Arrays = Mapping[str, Array]
KINDS = ["normal", "zero", "huge", "tiny", "denormal", "sparse", "nan", "inf", "-inf"]


class Tracks(AbstractCell):
    """Three momenta a coordinate, mixed as the tensor's state says, which is not zero at first."""

    mixing: Array
    config: Any = eqx.field(static=True, default=None)
    chunk_length: int = eqx.field(static=True, default=8)
    sample_chunks: int = eqx.field(static=True, default=3)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(
        static=True, default=(MemorySlot("tracks", (3,)), MemorySlot("outer", (2, 2)), MemorySlot("seen"))
    )

    def initial_state(self) -> dict[str, Array]:
        return {"decay": jnp.array([0.5, 0.9, 0.99]), "lowest": jnp.array(jnp.inf)}

    def measure(self, grad: Array) -> dict[str, Array]:
        return {"square": jnp.sum(grad * grad, axis=1), "largest": jnp.max(jnp.abs(grad), axis=1)}

    def encode(
        self, param: Array, grad: Array, memory: Arrays, valid: Array, moments: Arrays, facts: Arrays, state: Arrays
    ) -> dict[str, Array]:
        present = valid.astype(grad.dtype)
        kept = jnp.sum(memory["tracks"] * state["decay"][:, None, :] * present[:, :, None], axis=1)
        return {"kept": kept, "count": jnp.sum(present, axis=1), "chunks": jnp.ones(grad.shape[0])}

    def recall(
        self, summary: Arrays, moments: Arrays, facts: Arrays, clock: Arrays, state: Arrays
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        level = jnp.log1p(moments["square"] / facts["coordinates"])
        turned = jnp.einsum("ij,tj->ti", self.mixing, jnp.tanh(summary["kept"] / summary["count"][:, None]))
        weight = turned / summary["chunks"][:, None] + jnp.sin(clock["step"])[:, None]
        lowest = jnp.minimum(state["lowest"], level)
        context = {"weight": weight, "level": level, "decay": state["decay"]}
        return context, {"decay": 0.9 * state["decay"] + 0.05, "lowest": lowest}

    def decode(self, param: Array, grad: Array, memory: Arrays, context: Arrays) -> tuple[Array, dict[str, Array]]:
        small = jnp.clip(grad, -1, 1)
        tracks = context["decay"][:, None, :] * memory["tracks"] + jnp.expm1(small)[:, :, None]
        outer = 0.5 * memory["outer"] + jnp.stack([small, param], axis=2)[:, :, None, :]
        pulled = jnp.einsum("clk,ck->cl", tracks, context["weight"]) + jnp.max(outer, axis=(2, 3))
        direction = jnp.where(jnp.abs(small) >= 1e-3, pulled, jnp.floor(4 * param) / 4)
        return direction, {"tracks": tracks, "outer": outer, "seen": memory["seen"] + jnp.floor(2 * jnp.abs(small))}

    def scale(self, context: Arrays, spread: Arrays) -> Array:
        return 0.01 / (1 + jnp.sqrt(spread["square"] / spread["count"]) + context["level"])


class Signs(AbstractCell):
    """Descent along the signs of the gradient: no memory, no state, no attention."""

    rate: Array
    config: Any = eqx.field(static=True, default=None)
    chunk_length: int = eqx.field(static=True, default=16)
    sample_chunks: int = eqx.field(static=True, default=2)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(static=True, default=())

    def initial_state(self) -> dict[str, Array]:
        return {}

    def measure(self, grad: Array) -> dict[str, Array]:
        return {"square": jnp.sum(grad * grad, axis=1)}

    def encode(
        self, param: Array, grad: Array, memory: Arrays, valid: Array, moments: Arrays, facts: Arrays, state: Arrays
    ) -> dict[str, Array]:
        return {}

    def recall(
        self, summary: Arrays, moments: Arrays, facts: Arrays, clock: Arrays, state: Arrays
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        return {}, {}

    def decode(self, param: Array, grad: Array, memory: Arrays, context: Arrays) -> tuple[Array, dict[str, Array]]:
        return self.rate * jnp.sign(jnp.where(jnp.abs(grad) > 1e-30, grad, 0)), {}

    def scale(self, context: Arrays, spread: Arrays) -> Array:
        return jnp.ones_like(spread["square"])


@functools.cache
def cell_of(kind: str) -> AbstractCell:
    match kind:
        case "tracks":
            return Tracks(mixing=jnp.asarray(np.random.default_rng(3).normal(size=(3, 3)), jnp.float32))
        case "signs":
            return Signs(rate=jnp.array(0.01))
        case "mnemosyne":
            return learned_cell()
    return cell_config({"kind": kind}).build()


CELLS = ["tracks", "signs", "adam", "lstm", "mnemosyne"]


@pytest.fixture(scope="module")
def folder_of(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The artifact of a cell, exported with blocks so small that few coordinates are several of them."""

    @functools.cache
    def folder_of(kind: str) -> pathlib.Path:
        folder = tmp_path_factory.mktemp(kind)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_onnx_graphs, "LARGEST_BLOCK", 256)
            OnnxExporter().emit(frozen, compile_cell(cell_of(kind)), folder)
        return folder

    return folder_of


def gradient(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    normal = np.asarray(random.normal(size=shape))
    one = np.asarray(random.random(shape) < 1 / max(normal.size, 1))
    kinds: dict[str, Any] = {
        "normal": normal,
        "zero": np.zeros(shape),
        "huge": 1e12 * normal,
        "tiny": 1e-12 * normal,
        "denormal": 1e-41 * normal,
        "sparse": np.where(random.random(shape) < 0.2, normal, 0),
        "nan": np.full(shape, np.nan),
        "inf": np.where(one, np.inf, normal),
        "-inf": np.full(shape, -np.inf),
    }
    return np.asarray(kinds[kind], np.float32)


@functools.cache
def sessions(path: pathlib.Path, level: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.__members__[level]
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def run(session: onnxruntime.InferenceSession, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(names, dict(inputs))), strict=True))


def rollout(
    folder: pathlib.Path, level: str, param: np.ndarray, grads: Sequence[np.ndarray], options: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """What is carried after a step for each gradient."""
    flat = param.reshape(-1)
    held = {"param": flat, **run(sessions(folder / "init.onnx", level), {"param": flat})}
    facts = shape_facts(param.shape)
    given = {**options, "matrix": facts["matrix"], "aspect": facts["aspect"]}
    fixed = {name: np.asarray(value, np.float32) for name, value in given.items()}
    for grad in grads:
        results = run(sessions(folder / "update.onnx", level), {**held, **fixed, "grad": grad.reshape(-1)})
        held = {name: results[f"next.{name}"] for name in held}
    return held


@pytest.mark.parametrize("kind", CELLS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.sampled_from([(), (1,), (7,), (8,), (97,), (256,), (257,), (5, 7), (33, 31), (3, 3, 41), (1021,)]),
    history=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    seed=st.integers(0, 2**16),
    weight_decay=st.sampled_from([0.0, 0.1]),
    total_steps=st.sampled_from([0.0, 3.0, 100.0]),
)
def test_update_takes_the_steps_of_the_cell(
    folder_of: Any,
    kind: str,
    shape: tuple[int, ...],
    history: list[str],
    seed: int,
    weight_decay: float,
    total_steps: float,
) -> None:
    random = np.random.default_rng(seed)
    param = np.asarray(random.normal(size=shape), np.float32)
    grads = [gradient(each, shape, random) for each in history]
    options = {"lr": 1.0, "weight_decay": weight_decay, "total_steps": total_steps}
    (expected,), state = trajectory(
        cell_of(kind), [shape], [jnp.asarray(param)], [[jnp.asarray(grad)] for grad in grads], **options
    )
    refused = sum(not np.all(np.isfinite(grad)) for grad in grads)
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        held = rollout(folder_of(kind), level, param, grads, options)
        difference = np.linalg.norm(held["param"] - np.asarray(expected).reshape(-1))
        assert difference <= 1e-5 * len(grads) * np.linalg.norm(np.asarray(expected)) + 1e-12
        assert held["skipped"] == refused and held["step"] == len(grads) - refused
        for name, value in state.memory.items():
            flat = np.asarray(value).reshape(-1, *value.shape[2:])[: param.size]
            # What is denormal JAX takes for zero.
            smallest = 1e-4 * float(np.abs(flat).max()) + 1e-37
            np.testing.assert_allclose(held[f"memory.{name}"], flat, rtol=1e-3, atol=smallest)
        for name, value in state.recall.items():
            np.testing.assert_allclose(held[f"state.{name}"], np.asarray(value)[0], rtol=1e-4, atol=1e-6)


def test_phases_that_no_step_needs_are_not_written(folder_of: Any) -> None:
    expected = {
        "tracks": {"measure", "encode", "recall", "probe", "update"},
        "adam": {"measure", "recall", "update"},
        "lstm": {"measure", "update"},
        "signs": {"measure", "update"},
    }
    for kind, phases in expected.items():
        folder = folder_of(kind)
        assert {path.stem for path in (folder / "phases").iterdir()} == phases
        readme = (folder / "README.md").read_text(encoding="utf-8")
        assert all((f"`{phase}`" in readme) == (phase in phases) for phase in ("encode", "recall", "probe"))
        for path in folder.rglob("*.onnx"):
            model = onnx.load(path)
            assert model.graph.input and model.graph.output and model.graph.node


def test_init_gives_the_state_and_the_memory_before_the_first_step(folder_of: Any) -> None:
    given = run(sessions(folder_of("tracks") / "init.onnx", "ORT_ENABLE_ALL"), {"param": np.ones(5, np.float32)})
    shapes = {name: value.shape for name, value in given.items()}
    assert shapes == {
        "memory.tracks": (5, 3),
        "memory.outer": (5, 2, 2),
        "memory.seen": (5,),
        "state.decay": (3,),
        "state.lowest": (),
        "step": (),
        "skipped": (),
    }
    np.testing.assert_array_equal(given["state.decay"], np.array([0.5, 0.9, 0.99], np.float32))
    assert given["state.lowest"] == np.inf and not np.any(given["memory.tracks"])


PEAK = """
import sys, threading
import numpy as np, onnxruntime

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def watch():
    while not stop.wait(0.0005):
        seen.append(resident())

count, seen, stop = 4_000_000, [], threading.Event()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.enable_mem_pattern = 1, False
session = onnxruntime.InferenceSession(sys.argv[1], options)
inputs = {}
for node in session.get_inputs():
    shape = [count if size == "N" else size for size in node.shape]
    inputs[node.name] = np.full(shape, 1, np.int64 if node.name in ("step", "skipped") else np.float32)
before, watcher = resident(), threading.Thread(target=watch)
watcher.start()
session.run(None, inputs)
stop.set()
watcher.join()
print((max(seen) - before) / (4 * count))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_a_step_needs_its_outputs_one_more_array_and_a_block(frozen: FrozenCell) -> None:
    with tempfile.TemporaryDirectory() as folder:
        OnnxExporter().emit(frozen, compile_cell(frozen.cell()), pathlib.Path(folder))
        model = str(pathlib.Path(folder) / "update.onnx")
        done = subprocess.run([sys.executable, "-c", PEAK, model], capture_output=True, text=True, check=True)
    outputs = 1 + len(frozen.cell().memory_slots)
    assert outputs < float(done.stdout) < outputs + 2
