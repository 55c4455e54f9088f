"""Any cell's update.onnx takes the steps that the cell takes, whatever the tensor and its gradients."""

import functools
import math
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, HealthCheck, settings, strategies as st

from mnemo_compile.cell import AbstractCell, Tensors
from mnemo_compile.exporters.one_tensor import Signature
from mnemo_compile.exporters.onnx import _tensor, OnnxExporter
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.program import compile_cell
from mnemo_compile.step import shape_role
from tests.cells import cell_of, Levels, OWN
from tests.exporters.one_tensor import assert_takes_the_steps, numbers_of, shapes, TOGETHER, view_of

KINDS = ["normal", "zero", "huge", "tiny", "denormal", "sparse", "nan", "inf", "-inf"]


CELLS = ["tiled", "adam"]
LONG = ["bare", "lstm", "tracks", "levels", "mnemosyne"]


@pytest.fixture(scope="module")
def folder_of(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The export of a cell, exported with blocks so small that few coordinates are several of them."""

    @functools.cache
    def folder_of(kind: str) -> pathlib.Path:
        folder = tmp_path_factory.mktemp(kind)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_tensor, "LARGEST_BLOCK", 256)
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


def run(session: onnxruntime.InferenceSession, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    names = [node.name for node in session.get_outputs()]
    given = {node.name: inputs[node.name] for node in session.get_inputs()}
    return dict(zip(names, map(np.asarray, session.run(names, given)), strict=True))


def call(folder: pathlib.Path, level: str, name: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The outputs of a model."""
    return run(sessions(folder / f"{name}.onnx", level), inputs)


def summed(
    folder: pathlib.Path, level: str, given: Sequence[Mapping[str, np.ndarray]], kinds: Sequence[str]
) -> dict[str, np.ndarray]:
    """What the network's tensors tell each other."""
    if not (folder / "share.onnx").exists():
        return {}
    terms = [call(folder, level, f"share{kind}", inputs) for inputs, kind in zip(given, kinds, strict=True)]
    return {name: np.asarray(sum(each[name] for each in terms), np.float32) for name in terms[0]}


def rollout(
    folder: pathlib.Path,
    level: str,
    cell: AbstractCell,
    params: Sequence[np.ndarray],
    history: Sequence[Sequence[np.ndarray]],
    options: Mapping[str, float],
    forgotten: Mapping[int, str] | None = None,
) -> list[dict[str, np.ndarray]]:
    """What is carried of each tensor after the steps. A tensor may have zeros for one input each time."""
    views = [view_of(cell, param.shape) for param in params]
    kinds = ["_matrix" if view.has_tiles else "" for view in views]
    held: list[dict[str, np.ndarray]] = []
    for view, kind, param in zip(views, kinds, params, strict=True):
        array = view.of(param)
        held.append({"param": array, **call(folder, level, f"init{kind}", {"param": array})})
    fixed = [numbers_of(param.shape, options) for param in params]
    for grads in history:
        for place, name in (forgotten or {}).items():
            held[place][name] = np.zeros_like(held[place][name])
        given = [{**h, **f, "grad": v.of(grad)} for h, f, v, grad in zip(held, fixed, views, grads, strict=True)]
        sums = summed(folder, level, given, kinds)
        results = [
            call(folder, level, f"update{kind}", {**inputs, **sums}) for inputs, kind in zip(given, kinds, strict=True)
        ]
        held = [{name: each[f"next.{name}"] for name in h} for h, each in zip(held, results, strict=True)]
    return held


@pytest.mark.parametrize("kind", [*CELLS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in LONG)])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=shapes(),
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
    if kind == "tiled":
        # XLA takes what is denormal for zero, and a polar factor has no scale.
        history = [{"denormal": "tiny"}.get(each, each) for each in history]
    grads = [gradient(each, shape, random) for each in history]
    options = {"lr": 1.0, "weight_decay": weight_decay, "total_steps": total_steps}
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        history_of_one = [[grad] for grad in grads]
        held = rollout(folder_of(kind), level, cell_of(kind), [param], history_of_one, options)
        assert_takes_the_steps(cell_of(kind), [param], history_of_one, options, held)


def network(seed: int, steps: int) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Tensors and a history of gradients, those of one tensor not finite in the second step."""
    random = np.random.default_rng(seed)
    drawn = [[np.asarray(random.normal(size=shape), np.float32) for shape in TOGETHER] for _ in range(1 + steps)]
    params, *history = drawn
    history[1][2][3, 1] = np.inf
    return params, history


OPTIONS = {"lr": 1.0, "weight_decay": 0.1, "total_steps": 10.0}


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_tensors_that_tell_each_other_something_take_the_steps_of_the_cell(folder_of: Any, level: str) -> None:
    cell = cell_of("levels")
    params, history = network(4, steps=6)
    held = rollout(folder_of("levels"), level, cell, params, history, OPTIONS)
    assert_takes_the_steps(cell, params, history, OPTIONS, held)


def test_a_sum_that_is_not_finite_refuses_the_step_of_every_tensor(folder_of: Any) -> None:
    folder, level = folder_of("levels"), "ORT_ENABLE_ALL"
    (param, *_), history = network(1, steps=2)
    (held,) = rollout(folder, level, cell_of("levels"), [param], [history[0][:1]], OPTIONS)
    grad = view_of(cell_of("levels"), param.shape).of(history[0][0])
    inputs = {**held, **numbers_of(param.shape, OPTIONS), "grad": grad}
    sums = summed(folder, level, [inputs], [""])
    update = sessions(folder / "update.onnx", level)
    assert run(update, {**inputs, **sums})["finite"]
    for name, place in (("network.clock", ()), ("network.levels", (1,))):
        for number in (np.nan, -np.inf):
            broken = np.array(sums[name])
            broken[place] = number
            after = run(update, {**inputs, **sums, name: broken})
            assert not after["finite"] and after["next.step"] == held["step"] and after["next.skipped"] == 1
            for key in held.keys() - {"skipped"}:
                np.testing.assert_array_equal(after[f"next.{key}"], held[key])


def test_tensors_of_other_roles_need_not_keep_what_is_not_theirs(folder_of: Any) -> None:
    params, history = network(2, steps=5)
    for forgets_own in (False, True):
        places = {i: "memory.own" for i, shape in enumerate(TOGETHER) if (shape_role(shape) in OWN) == forgets_own}
        assert len(places) >= 2
        held = rollout(folder_of("levels"), "ORT_ENABLE_ALL", cell_of("levels"), params, history, OPTIONS, places)
        if forgets_own:
            with pytest.raises(AssertionError):
                assert_takes_the_steps(cell_of("levels"), params, history, OPTIONS, held)
        else:
            assert_takes_the_steps(cell_of("levels"), params, history, OPTIONS, held)


def test_a_model_has_only_the_inputs_that_something_needs(folder_of: Any) -> None:
    def inputs(kind: str, model: str) -> set[str]:
        return {node.name for node in sessions(folder_of(kind) / model, "ORT_ENABLE_ALL").get_inputs()}

    memory = {"memory.narrow", "memory.tokens", "memory.energy"}
    assert inputs("levels", "share.onnx") == {"grad", "step", "param", "matrix", "state.loudest"} | memory
    always = {"param", "grad", "step", "skipped", "lr", "weight_decay"}
    assert inputs("trio", "update.onnx") == always | {"memory.three"}
    levels = {"matrix", "role", "state.loudest", "network.clock", "network.levels"} | memory
    assert inputs("levels", "update.onnx") == always | levels | {"memory.pair", "memory.own"}
    assert inputs("tiled", "update.onnx") == always | {"role", "memory.fast", "memory.slow", "memory.square"}
    assert inputs("tiled", "update_matrix.onnx") == always | {"memory.fast", "memory.slow"}
    assert inputs("tiled", "init_matrix.onnx") == {"param"}
    assert {kind for kind in [*CELLS, "levels"] if (folder_of(kind) / "share.onnx").exists()} == {"levels"}


def test_the_example_in_the_readme_of_tensors_that_share_runs(
    folder_of: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (folder_of("levels") / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert "share.onnx" in example
    monkeypatch.chdir(folder_of("levels"))
    exec(compile(example, "README.md", "exec"), {})
    before, after = map(float, capsys.readouterr().out.split("->"))
    assert after < before


def test_the_readme_says_what_each_input_is_and_what_need_not_be_kept(folder_of: Any) -> None:
    text = (folder_of("levels") / "README.md").read_text(encoding="utf-8")
    for name in [node.name for node in sessions(folder_of("levels") / "update.onnx", "ORT_ENABLE_ALL").get_inputs()]:
        assert f"`{name}`" in text
    plain = " ".join(text.split())
    for sentence in (
        "| `param`, `grad` | batch × rows × columns | the tensor and its gradient |",
        "| `memory.tokens` | chunks × 2 × 3 | memory per chunk |",
        "0 vector, 1 matrix, 2 embedding, 3 head, 4 convolution",
        "chunks is batch · rows · (columns / 8, rounded up), and a chunk is 8 coordinates.",
        "Tensors of the roles vector and embedding have `memory.own`.",
        "All numbers of `memory.narrow` and `memory.pair` are numbers of bfloat16.",
        "`share.onnx` takes `param`, `grad`, `memory.narrow`, ",
        "Rows of `share` and `recall` are tensors. Rows of the others are chunks of 8 coordinates.",
    ):
        assert sentence in plain
    other = (folder_of("tracks") / "README.md").read_text(encoding="utf-8")
    assert not re.search("share|role|bfloat16|chunk `|chunks is|_matrix|tile", other)
    tiled = " ".join((folder_of("tiled") / "README.md").read_text(encoding="utf-8").split())
    for sentence in (
        "Tensors of the roles matrix and convolution have `init_matrix.onnx` and `update_matrix.onnx` instead.",
        "These take no `memory.square`.",
        "They cut each matrix into the fewest tiles of at most 12 × 12, of equal sizes.",
        "A convolution is 1 × outputs × (inputs · space).",
        "Rows of `orthogonalise` and `update_tiles` are tiles with no more rows than columns.",
    ):
        assert sentence in tiled
    assert "need not store" not in tiled


def test_phases_that_no_step_needs_are_not_written(folder_of: Any) -> None:
    expected = {
        "tracks": {"measure", "encode", "recall", "update"},
        "levels": {"measure", "encode", "share", "recall", "update"},
        "tiled": {"measure", "recall", "update", "orthogonalise", "update_tiles"},
        "adam": {"measure", "recall", "update"},
        "lstm": {"measure", "update"},
        "bare": {"measure", "update"},
    }
    for kind, phases in expected.items():
        folder = folder_of(kind)
        assert {path.stem for path in (folder / "phases").iterdir()} == phases
        readme = (folder / "README.md").read_text(encoding="utf-8")
        assert all(
            (f"`{phase}`" in readme) == (phase in phases) for phase in ("encode", "share", "recall", "orthogonalise")
        )
        for path in folder.rglob("*.onnx"):
            model = onnx.load(path)
            assert model.graph.input and model.graph.output and model.graph.node


def test_init_gives_the_state_and_the_memory_before_the_first_step(folder_of: Any) -> None:
    level = "ORT_ENABLE_ALL"
    given = call(folder_of("tracks"), level, "init", {"param": np.ones((1, 1, 5), np.float32)})
    shapes = {name: value.shape for name, value in given.items()}
    assert shapes == {
        "memory.tracks": (1, 1, 5, 3),
        "memory.outer": (1, 1, 5, 2, 2),
        "memory.seen": (1, 1, 5),
        "state.decay": (3,),
        "state.lowest": (),
        "step": (),
        "skipped": (),
    }
    levels = call(folder_of("levels"), level, "init", {"param": np.ones((2, 3, 17), np.float32)})
    assert levels["memory.pair"].shape == (2, 3, 17, 2)
    assert levels["memory.energy"].shape == (18,) and levels["memory.tokens"].shape == (18, 2, 3)
    np.testing.assert_array_equal(given["state.decay"], np.array([0.5, 0.9, 0.99], np.float32))
    assert given["state.lowest"] == np.inf and not np.any(given["memory.tracks"])
    tiled = call(folder_of("tiled"), level, "init_matrix", {"param": np.ones((2, 3, 17), np.float32)})
    assert {name: value.shape for name, value in tiled.items() if value.shape} == {
        "memory.fast": (2, 3, 17),
        "memory.slow": (2, 3, 17),
    }


RESTARTS = [((1, 129, 3), 129 * 3), ((3, 5, 41), 41), ((1, 1, 400), 400), ((2, 40, 8), 8), ((7, 2, 3), 42)]


@pytest.mark.parametrize(("sizes", "run"), RESTARTS)
def test_chunks_restart_at_rows_that_fill_one_else_at_matrices_that_do(
    folder_of: Any, sizes: tuple[int, int, int], run: int
) -> None:
    """Levels sums its memory per chunk, and divides by the coordinates of the chunk."""
    grad = np.random.default_rng(0).normal(size=sizes).astype(np.float32)
    init = call(folder_of("levels"), "ORT_ENABLE_ALL", "init", {"param": grad})
    inputs = {"param": grad, **init, **numbers_of(sizes, OPTIONS), "grad": grad}
    sums = summed(folder_of("levels"), "ORT_ENABLE_ALL", [inputs], [""])
    after = call(folder_of("levels"), "ORT_ENABLE_ALL", "update", {**inputs, **sums})["next.memory.energy"]

    def chunks(values: np.ndarray) -> np.ndarray:
        return np.pad(values.reshape(-1, run), ((0, 0), (0, -run % 8))).reshape(-1, 8)

    places = np.sum(chunks(grad) ** 2, axis=0)
    energy = np.sum(np.tanh(chunks(grad) / (1 + places)) ** 2, axis=1) / np.sum(chunks(np.ones(sizes)), axis=1)
    np.testing.assert_allclose(after[: len(energy)], energy, rtol=1e-5)
    assert len(after) == sizes[0] * sizes[1] * -(-sizes[2] // 8) and not np.any(after[len(energy) :])


def test_a_transposed_matrix_gets_the_transposed_update(folder_of: Any) -> None:
    random = np.random.default_rng(1)
    for sizes in ((1, 33, 31), (1, 40, 7), (2, 13, 12)):
        param, *grads = (random.normal(size=sizes).astype(np.float32) for _ in range(4))

        def steps(turn: Any) -> np.ndarray:
            start = {"param": turn(param)}
            held = {**start, **call(folder_of("tiled"), "ORT_ENABLE_ALL", "init_matrix", start)}
            for grad in grads:
                inputs = {**held, **numbers_of(sizes, OPTIONS), "grad": turn(grad)}
                after = call(folder_of("tiled"), "ORT_ENABLE_ALL", "update_matrix", inputs)
                held = {name: after[f"next.{name}"] for name in held}
            return held["param"]

        straight, turned = steps(lambda x: x), steps(lambda x: np.ascontiguousarray(x.swapaxes(1, 2)))
        np.testing.assert_allclose(turned.swapaxes(1, 2), straight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["zero", "nan", "-inf", "huge", "denormal", "sparse"])
def test_matrices_of_extreme_gradients_never_become_nan(folder_of: Any, kind: str) -> None:
    sizes = (2, 13, 14)
    param = np.ones(sizes, np.float32)
    grad = gradient(kind, sizes, np.random.default_rng(0))
    init = call(folder_of("tiled"), "ORT_ENABLE_ALL", "init_matrix", {"param": param})
    inputs = {"param": param, **init, **numbers_of(sizes, OPTIONS), "grad": grad}
    after = call(folder_of("tiled"), "ORT_ENABLE_ALL", "update_matrix", inputs)
    assert after["finite"] == np.all(np.isfinite(grad)) and np.all(np.isfinite(after["next.param"]))


PEAK = """
import sys, threading
import numpy as np, onnxruntime

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def watch():
    while not stop.wait(0.0005):
        seen.append(resident())

count, seen, stop = 2000 * 2000, [], threading.Event()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.enable_mem_pattern = 1, False
session = onnxruntime.InferenceSession(sys.argv[1], options)
inputs = {}
for node in session.get_inputs():
    sizes = {"batch": 1, "rows": 2000, "columns": 2000, "chunks": 2000 * -(-2000 // int(sys.argv[2]))}
    shape = [sizes.get(size, size) for size in node.shape]
    inputs[node.name] = np.full(shape, 1, np.int64 if node.name in ("step", "skipped") else np.float32)
before, watcher = resident(), threading.Thread(target=watch)
watcher.start()
session.run(None, inputs)
stop.set()
watcher.join()
print((max(seen) - before) / (4 * count))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize("has_tiles", [False, True])
def test_a_step_needs_its_outputs_one_more_array_and_a_block(frozen: FrozenCell, has_tiles: bool) -> None:
    compiled = compile_cell(frozen.cell())
    signature = Signature(compiled, has_tiles)
    length = compiled.chunk_length
    with tempfile.TemporaryDirectory() as folder:
        OnnxExporter().emit(frozen, compiled, pathlib.Path(folder))
        path = pathlib.Path(folder) / f"{signature.path('update')}.onnx"
        command = [sys.executable, "-c", PEAK, str(path), str(length)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    outputs = 1 + sum(math.prod(slot.shape) / (length if slot.per == "chunk" else 1) for slot in signature.slots)
    assert outputs < float(done.stdout) < outputs + 2


class Clocked(Levels):
    """What tensors tell each other needs no summary."""

    def share(self, tensors: Tensors) -> dict[str, Any]:
        phase = jnp.cos(tensors.clock["step"])
        return {"levels": jnp.stack([phase + tensors.moments["square"], 2 + phase], axis=1), "clock": phase}


def test_what_is_told_without_a_summary_takes_the_gradient_and_the_clock_alone(
    frozen: FrozenCell, tmp_path: pathlib.Path
) -> None:
    OnnxExporter().emit(frozen, compile_cell(Clocked()), tmp_path)
    params, history = network(4, steps=3)
    held = rollout(tmp_path, "ORT_ENABLE_ALL", Clocked(), params, history, OPTIONS)
    assert_takes_the_steps(Clocked(), params, history, OPTIONS, held)
    inputs = sessions(tmp_path / "share.onnx", "ORT_ENABLE_ALL").get_inputs()
    assert {node.name for node in inputs} == {"grad", "step"}


class Counted(Levels):
    """What tensors tell each other is known before there is a gradient."""

    def share(self, tensors: Tensors) -> dict[str, Any]:
        matrix = tensors.shape["matrix"]
        return {"levels": jnp.stack([1 + matrix, 2 + matrix], axis=1), "clock": matrix}


def test_what_is_told_without_the_gradient_leaves_nothing_unneeded_in_the_model(
    frozen: FrozenCell, tmp_path: pathlib.Path
) -> None:
    OnnxExporter().emit(frozen, compile_cell(Counted()), tmp_path)
    params, history = network(4, steps=3)
    # A gradient that is not finite would refuse the step of its tensor alone, as where nothing is told.
    history[1][2][3, 1] = 1.0
    held = rollout(tmp_path, "ORT_ENABLE_ALL", Counted(), params, history, OPTIONS)
    assert_takes_the_steps(Counted(), params, history, OPTIONS, held)
    graph = onnx.load(tmp_path / "share.onnx").graph
    assert not any(node.op_type == "Loop" for node in graph.node)
    # A runtime warns of what it has to take out.
    assert {each.name for each in graph.initializer} <= {name for node in graph.node for name in node.input}
    assert {node.name for node in graph.input} == {"grad", "matrix"}
