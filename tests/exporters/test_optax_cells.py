"""Any cell becomes a gradient transformation that steps as the reference does."""

import functools
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st
from jaxtyping import Array

from mnemo_compile.artifact import FrozenCell
from mnemo_compile.cell import AbstractCell, cell_config, MemorySlot
from mnemo_compile.exporters._package import load_package
from mnemo_compile.exporters.optax import OptaxExporter
from mnemo_compile.program import compile_cell
from tests.helpers import learned_cell, trajectory

Arrays = Mapping[str, Array]


class Tracks(AbstractCell):
    """Memory of two shapes, a state that is not zero at first, and every phase."""

    mixing: Array = eqx.field(default_factory=lambda: jnp.array([[1.0, -0.5, 0.2], [0.3, 0.4, 0.1], [-0.2, 0.6, 0.5]]))
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
        return {"kept": kept, "count": jnp.sum(present, axis=1)}

    def recall(
        self, summary: Arrays, moments: Arrays, facts: Arrays, clock: Arrays, state: Arrays
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        level = jnp.log1p(moments["square"] / facts["coordinates"])
        turned = jnp.einsum("ij,tj->ti", self.mixing, jnp.tanh(summary["kept"] / summary["count"][:, None]))
        lowest = jnp.minimum(state["lowest"], level)
        context = {"weight": turned + jnp.sin(clock["step"])[:, None], "level": level, "decay": state["decay"]}
        return context, {"decay": 0.9 * state["decay"] + 0.05, "lowest": lowest}

    def decode(self, param: Array, grad: Array, memory: Arrays, context: Arrays) -> tuple[Array, dict[str, Array]]:
        small = jnp.clip(grad, -1, 1)
        tracks = context["decay"][:, None, :] * memory["tracks"] + jnp.expm1(small)[:, :, None]
        outer = 0.5 * memory["outer"] + jnp.stack([small, param], axis=2)[:, :, None, :]
        pulled = jnp.einsum("clk,ck->cl", tracks, context["weight"]) + jnp.max(outer, axis=(2, 3))
        direction = jnp.where(jnp.abs(small) >= 1e-3, pulled, param)
        return direction, {"tracks": tracks, "outer": outer, "seen": memory["seen"] + jnp.abs(small)}

    def scale(self, context: Arrays, spread: Arrays) -> Array:
        return 0.01 / (1 + jnp.sqrt(spread["square"] / spread["count"]) + context["level"])


class Bare(AbstractCell):
    """Neither memory nor state, and no phase but the two that each step needs."""

    config: Any = eqx.field(static=True, default=None)
    chunk_length: int = eqx.field(static=True, default=16)
    sample_chunks: int = eqx.field(static=True, default=2)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(static=True, default=())

    def initial_state(self) -> dict[str, Array]:
        return {}

    def measure(self, grad: Array) -> dict[str, Array]:
        return {"sum": jnp.sum(grad, axis=1)}

    def encode(
        self, param: Array, grad: Array, memory: Arrays, valid: Array, moments: Arrays, facts: Arrays, state: Arrays
    ) -> dict[str, Array]:
        return {}

    def recall(
        self, summary: Arrays, moments: Arrays, facts: Arrays, clock: Arrays, state: Arrays
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        return {}, {}

    def decode(self, param: Array, grad: Array, memory: Arrays, context: Arrays) -> tuple[Array, dict[str, Array]]:
        return jnp.log1p(jnp.abs(grad)) * jnp.sign(grad), {}

    def scale(self, context: Arrays, spread: Arrays) -> Array:
        return 0.01 * jnp.ones_like(spread["count"])


@functools.cache
def cell_of(kind: str) -> AbstractCell:
    match kind:
        case "tracks":
            return Tracks()
        case "bare":
            return Bare()
        case "lstm":
            return cell_config({"kind": "lstm", "hidden": 3}).build()
        case "mnemosyne":
            return learned_cell()
    return cell_config({"kind": kind}).build()


SHAPES = ((7,), (33, 31), (), (40, 64), (40, 64), (1, 97))
"""With blocks of 256 coordinates: whole, in blocks with an end, in blocks that two share, and padded."""
HISTORY = st.lists(st.sampled_from(["normal", "zero", "huge", "sparse", "nan"]), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def package_of(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The imported package of a kind of cell."""

    @functools.cache
    def package_of(kind: str) -> ModuleType:
        folder = tmp_path_factory.mktemp(kind)
        OptaxExporter().emit(frozen, compile_cell(cell_of(kind)), folder)
        return load_package(folder / "small_cell")

    return package_of


@pytest.fixture(scope="module")
def stepper_of(package_of: Any) -> Any:
    """The transformation of a kind of cell, and a step with it, compiled once."""

    @functools.cache
    def stepper_of(kind: str) -> tuple[Any, Any]:
        transformation = package_of(kind).mnemosyne(weight_decay=0.1, total_steps=10, block_size=256)

        @jax.jit
        def advance(params: Any, state: Any, grads: Any) -> Any:
            updates, state = transformation.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        return transformation, advance

    return stepper_of


def gradients(kind: str, seed: int) -> list[jax.Array]:
    random = np.random.default_rng(seed)
    drawn = [np.asarray(random.normal(size=shape)) for shape in SHAPES]
    kinds = {
        "normal": drawn,
        "zero": [np.zeros_like(each) for each in drawn],
        "huge": [1e12 * each for each in drawn],
        "sparse": [np.where(each > 1, each, 0) for each in drawn],
        "nan": [each * np.nan if place == 3 else each for place, each in enumerate(drawn)],
    }
    return [jnp.asarray(each, jnp.float32) for each in kinds[kind]]


@pytest.mark.parametrize("kind", ["tracks", "bare", "adam", "lstm", pytest.param("mnemosyne", marks=pytest.mark.slow)])
@settings(max_examples=5, deadline=None)
@given(history=HISTORY, seed=st.integers(0, 2**16))
def test_it_takes_the_steps_of_the_cell(stepper_of: Any, kind: str, history: list[str], seed: int) -> None:
    transformation, advance = stepper_of(kind)
    random = np.random.default_rng(seed)
    start = [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in SHAPES]
    grads = [gradients(each, seed + place) for place, each in enumerate(history)]
    params, state = start, transformation.init(start)
    for each in grads:
        params, state = advance(params, state, each)
    expected, after = trajectory(cell_of(kind), SHAPES, start, grads, weight_decay=0.1, total_steps=10.0)
    for given_, true in zip(params, expected, strict=True):
        assert np.linalg.norm(given_ - true) <= 1e-5 * len(grads) * np.linalg.norm(true) + 1e-12
    assert int(state.skipped) == history.count("nan") and int(state.step) == len(history) - history.count("nan")
    starts = np.cumsum([0, *(-(-int(np.prod(shape)) // cell_of(kind).chunk_length) for shape in SHAPES)])
    for name, chunks in after.memory.items():
        for array, first, last, shape in zip(state.memory[name], starts, starts[1:], SHAPES, strict=False):
            kept = chunks.shape[2:]
            true = np.asarray(chunks[first:last]).reshape(-1, *kept)[: int(np.prod(shape))].reshape((*shape, *kept))
            np.testing.assert_allclose(array, true, rtol=1e-3, atol=1e-5 * float(np.abs(true).max(initial=0)) + 1e-37)
    for name, rows in after.recall.items():
        np.testing.assert_allclose(state.recall[name], rows, rtol=1e-4, atol=1e-6)


def test_only_the_phases_that_a_step_needs_are_there(package_of: Any) -> None:
    assert set(package_of("tracks")._phases.INPUTS) == {"measure", "encode", "recall", "probe", "update"}
    assert set(package_of("adam")._phases.INPUTS) == {"measure", "recall", "update"}
    assert set(package_of("bare")._phases.INPUTS) == set(package_of("lstm")._phases.INPUTS) == {"measure", "update"}


def test_the_state_has_the_shapes_of_slots_and_what_the_cell_begins_with(package_of: Any) -> None:
    params = {"w": jnp.ones((4, 5)), "none": jnp.ones((0, 3)), "b": jnp.ones(())}
    state = package_of("tracks").mnemosyne().init(params)
    assert state.memory["tracks"]["w"].shape == (4, 5, 3)
    assert state.memory["outer"]["none"].shape == (0, 3, 2, 2)
    assert state.memory["seen"]["b"].shape == ()
    np.testing.assert_array_equal(state.recall["decay"], np.array([[0.5, 0.9, 0.99]] * 2, np.float32))
    np.testing.assert_array_equal(state.recall["lowest"], [np.inf] * 2)


def test_the_state_of_another_cell_is_refused(package_of: Any) -> None:
    params = {"w": jnp.ones((4, 5))}
    state = package_of("lstm").mnemosyne().init(params)
    with pytest.raises(ValueError, match="that of another cell or of other parameters: it has memory first_carried"):
        package_of("adam").mnemosyne().update(params, state, params)
    bare = package_of("bare").mnemosyne()
    other = bare.init(params)._replace(memory={}, recall={"x": jnp.ones(1)})
    with pytest.raises(ValueError, match="recall x .* where .* has memory of nothing and recall of nothing"):
        bare.update(params, other, params)


def test_contractions_leave_no_precision_to_the_backend(package_of: Any) -> None:
    phases, weights = package_of("tracks")._phases, package_of("tracks")._optimizer._weights()
    program = compile_cell(cell_of("tracks")).programs["recall"]
    inputs = {
        value.name: jnp.ones([3 if n == "rows" else n for n in value.shape], value.dtype) for value in program.inputs
    }
    text = jax.jit(phases.recall).lower(weights, inputs).as_text()
    dots = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert dots and all("precision = [HIGHEST, HIGHEST]" in line for line in dots)
