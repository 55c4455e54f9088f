"""Any cell becomes a gradient transformation that steps as the reference does."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

from mnemo_compile.cell import AbstractCell, MemorySlot
from mnemo_compile.program import compile_cell
from mnemo_compile.step import describe, Layout, reference, Role
from mnemo_compile.step.reference import layout_of
from tests.cells import cell_of
from tests.helpers import jitted_pack, jitted_step, trajectory

SHAPES = ((7,), (33, 31), (), (40, 64), (40, 64), (1, 97), (6, 160), (10, 6, 3, 3), (331,))
"""With blocks of 256 coordinates: whole, in blocks with an end, in blocks that two share, padded, an embedding, a
convolution, and a vector with an end."""
HISTORY = st.lists(st.sampled_from(["normal", "zero", "huge", "sparse", "nan"]), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def stepper_of(package_of: Any) -> Any:
    """The transformation of a kind of cell, and a step with it, compiled once."""

    @functools.cache
    def stepper_of(kind: str) -> tuple[Any, Any]:
        transformation = package_of(kind).mnemosyne(weight_decay=10.0, total_steps=10, block_size=256)
        return transformation, stepper(transformation)

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


def assert_kept(cell: AbstractCell, layout: Layout, state: Any, after: reference.OptimizerState) -> None:
    """Each tensor keeps what the reference keeps of it, and nothing of a slot that is not for its role."""
    starts = np.cumsum([0, *layout.chunks])
    for slot in cell.memory_slots:
        for tensor, array in enumerate(state.memory[slot.name]):
            shape, role = layout.shapes[tensor], layout.described[tensor].role
            assert array.dtype == slot.dtype
            if slot.roles is not None and role not in slot.roles:
                assert array.shape == (0,)
                continue
            true = np.asarray(after.memory[slot.name][starts[tensor] : starts[tensor + 1]])
            if slot.per == "coordinate":
                runs, run = layout.sizes[tensor] // layout.runs[tensor], layout.runs[tensor]
                true = true.reshape(runs, -1, *slot.shape)[:, :run].reshape((*shape, *slot.shape))
            assert_alike(slot, np.asarray(array, np.float32), true)


def assert_alike(slot: MemorySlot, array: np.ndarray, true: np.ndarray) -> None:
    """Within what float32 allows. Of numbers in bfloat16, one in a hundred may have been rounded the other way once."""
    assert array.shape == true.shape
    if slot.dtype == "bfloat16":
        is_flipped = (array != true) & (np.abs(array - true) <= 2**-7 * np.abs(true).max())
        assert is_flipped.sum() <= max(1, 0.01 * true.size)
        array = np.where(is_flipped, true, array)
    np.testing.assert_allclose(array, true, rtol=1e-3, atol=1e-5 * float(np.abs(true).max(initial=0)) + 1e-37)


@pytest.mark.parametrize(
    "kind",
    [
        *("trio", "bare", "adam", "lstm", "tiled"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("tracks", "levels", "mnemosyne", "everything")),
    ],
)
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
    expected, after = trajectory(cell_of(kind), SHAPES, start, grads, weight_decay=10.0, total_steps=10.0)
    for given_, true in zip(params, expected, strict=True):
        assert np.linalg.norm(given_ - true) <= 1e-5 * len(grads) * np.linalg.norm(true) + 1e-12
    assert int(state.skipped) == history.count("nan") and int(state.step) == len(history) - history.count("nan")
    cell = cell_of(kind)
    assert_kept(cell, layout_of(cell, SHAPES), state, after)
    for name, rows in after.recall.items():
        np.testing.assert_allclose(state.recall[name], rows, rtol=1e-4, atol=1e-6)


def test_only_the_phases_that_a_step_needs_are_there(package_of: Any) -> None:
    assert set(package_of("levels")._phases.INPUTS) == {"measure", "encode", "share", "recall", "update"}
    assert set(package_of("tracks")._phases.INPUTS) == {"measure", "encode", "recall", "update"}
    tiles = {"measure", "recall", "update", "orthogonalise", "update_tiles"}
    assert set(package_of("tiled")._phases.INPUTS) == tiles
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


SAID: dict[str, Role | None] = {"a.0": "embedding", "a.1": "matrix", "b": "head", "c.deep": "vector", "one": None}
"""Labels of parameters, by their paths."""
NAMED = {"a": [(40, 64), (40, 64)], "b": (3, 160), "c": {"deep": (33, 31)}, "none": (0, 3), "one": (5,)}


def drawn(shapes: Any, seed: int) -> Any:
    random = np.random.default_rng(seed)
    is_shape = lambda leaf: isinstance(leaf, tuple)  # noqa: E731
    return jax.tree.map(lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32), shapes, is_leaf=is_shape)


def assert_steps(kind: str, layout: Layout, params: Any, history: list[Any], stepped: list[Any], bound: float) -> Any:
    """Asserts that tensors with coordinates took the reference's steps. Returns its state."""
    cell = cell_of(kind)
    hyper = {name: jnp.array(0.0) for name in ("weight_decay", "total_steps")} | {"lr": jnp.array(1.0)}
    packed = jitted_pack(layout, [leaf for leaf in jax.tree.leaves(params) if leaf.size])
    state = reference.init(cell, layout)
    for grads in history:
        grad = jitted_pack(layout, [leaf for leaf in jax.tree.leaves(grads) if leaf.size])
        packed, state = jitted_step(cell, layout, packed, grad, state, hyper)
    for given_, true in zip(stepped, reference.unpack(layout, packed), strict=True):
        assert np.linalg.norm(given_ - true) <= bound * np.linalg.norm(true)
    return state


@pytest.mark.parametrize("kind", [pytest.param("levels", marks=pytest.mark.slow), "tiled"])
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_roles_may_be_labels(named: Any, kind: str, seed: int) -> None:
    """Two tensors of one shape have other slots; each takes the steps of its role."""
    transformation, advance = named(kind)
    params, history = drawn(NAMED, seed), [drawn(NAMED, seed + step + 1) for step in range(3)]
    state, after_params = transformation.init(params), params
    for grads in history:
        after_params, state = advance(after_params, state, grads)
    shapes = tuple(leaf.shape for leaf in jax.tree.leaves(params) if leaf.size)
    labels = [label for path, label in SAID.items()]
    descriptions = tuple(describe(shape, label=label) for shape, label in zip(shapes, labels, strict=True))
    cell = cell_of(kind)
    layout = Layout(shapes, cell.chunk_length, cell.sample_chunks, cell.tile, descriptions)
    stepped = [leaf for leaf in jax.tree.leaves(after_params) if leaf.size]
    expected_state = assert_steps(kind, layout, params, history, stepped, 3e-5)
    memory = {
        name: [tree["a"][0], tree["a"][1], tree["b"], tree["c"]["deep"], tree["one"]]
        for name, tree in state.memory.items()
    }
    assert_kept(cell, layout, state._replace(memory=memory), expected_state)


@pytest.fixture(scope="module")
def named(package_of: Any) -> Any:
    """The transformation of a kind of cell whose roles are labels, and its step."""

    @functools.cache
    def named(kind: str) -> tuple[Any, Any]:
        def roles(path: str, array: jax.Array) -> str | None:
            assert path == "none" and array.shape == (0, 3) or array.size and path in SAID
            return SAID.get(path)

        transformation = package_of(kind).mnemosyne(block_size=256, roles=roles)
        return transformation, stepper(transformation)

    return named


def stepper(transformation: Any) -> Any:
    @jax.jit
    def advance(params: Any, state: Any, grads: Any) -> Any:
        updates, state = transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return advance


def test_a_state_for_other_roles_is_refused(package_of: Any) -> None:
    package, params = package_of("levels"), {"w": jnp.ones((4, 5))}
    embedded = package.mnemosyne(roles=lambda path, array: "embedding")
    state = package.mnemosyne().init(params)
    message = r"the state's memory 'own' have shape \(0,\) at \['w'\] where \(4, 5\) belongs"
    with pytest.raises(ValueError, match=message):
        embedded.update(params, state, params)
    with pytest.raises(ValueError, match=r"'own' have shape \(4, 5\) at \['w'\] where \(0,\) belongs"):
        package.mnemosyne().update(params, embedded.init(params), params)
    turned = state._replace(memory={**state.memory, "tokens": {"w": jnp.zeros((2, 3, 3))}})
    with pytest.raises(ValueError, match=r"'tokens' have shape \(2, 3, 3\) at \['w'\] where \(3, 2, 3\) belongs"):
        package.mnemosyne().update(params, turned, params)


SLOTS = {
    "narrow": {"w": (4, 5), "b": (9,), "none": (0, 3), "one": ()},
    "pair": {"w": (4, 5, 2), "b": (9, 2), "none": (0, 3, 2), "one": (2,)},
    "own": {"w": (0,), "b": (9,), "none": (0, 3), "one": ()},
    "energy": {"w": (3,), "b": (2,), "none": (0,), "one": (1,)},
    "tokens": {"w": (3, 2, 3), "b": (2, 2, 3), "none": (0, 2, 3), "one": (1, 2, 3)},
}
"""Of the state of `levels`, with chunks of 8 coordinates."""


def test_each_kind_of_slot_has_its_shape_and_dtype(package_of: Any) -> None:
    params = {name: jnp.ones(shape) for name, shape in SLOTS["narrow"].items()}
    transformation = package_of("levels").mnemosyne()

    def shapes(state: Any) -> Any:
        return {slot: {name: array.shape for name, array in tree.items()} for slot, tree in state.memory.items()}

    for make in (transformation.init, lambda params: jax.eval_shape(transformation.init, params)):
        state = make(params)
        assert shapes(state) == SLOTS
        for slot, tree in state.memory.items():
            expected = jnp.bfloat16 if slot in ("narrow", "pair") else jnp.float32
            assert all(array.dtype == expected for array in tree.values())
    assert not any(np.any(array) for array in jax.tree.leaves(transformation.init(params).memory))
    state = jax.eval_shape(transformation.init, params)
    _, after = jax.eval_shape(transformation.update, params, state, params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


def test_a_state_that_was_saved_in_float32_is_the_same(package_of: Any) -> None:
    transformation = package_of("levels").mnemosyne()
    params, grads = drawn({"w": (4, 5), "b": (9,)}, 0), drawn({"w": (4, 5), "b": (9,)}, 1)
    _, state = transformation.update(grads, transformation.init(params), params)
    saved = state._replace(memory=jax.tree.map(lambda array: np.asarray(array, np.float32), state.memory))
    for left, right in zip(
        jax.tree.leaves(transformation.update(grads, state, params)),
        jax.tree.leaves(transformation.update(grads, saved, params)),
        strict=True,
    ):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def test_each_member_of_an_ensemble_steps_as_it_does_alone(package_of: Any) -> None:
    """Under `jax.vmap` and in a scan; the hyperparameters injected, and blocks that are a part of a tensor."""
    make = optax.inject_hyperparams(package_of("levels").mnemosyne, static_args=("block_size", "roles"))
    transformation = make(lr=0.5, block_size=64, roles=lambda path, array: "embedding" if path == "e" else None)
    shapes = {"w": (10, 16), "e": (10, 16), "b": (9,)}
    members = [drawn(shapes, seed) for seed in range(2)]
    histories = [[drawn(shapes, 10 * seed + step) for step in (2, 3)] for seed in range(2)]

    def train(params: Any, history: Any) -> Any:
        def body(carry: Any, grads: Any) -> Any:
            updates, state = transformation.update(grads, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(body, (params, transformation.init(params)), history)[0]

    def stacked(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    each = [stacked(history) for history in histories]
    params, state = jax.jit(jax.vmap(train))(stacked(members), stacked(each))
    alone = jax.jit(train)
    for place, (member, history) in enumerate(zip(members, each, strict=True)):
        expected, inner = alone(member, history)
        assert inner.inner_state.memory["own"]["w"].shape == (0,)
        for name, true in expected.items():
            assert np.linalg.norm(params[name][place] - true) <= 3e-5 * np.linalg.norm(true)
        for slot in cell_of("levels").memory_slots:
            for name, true in inner.inner_state.memory[slot.name].items():
                array = state.inner_state.memory[slot.name][name][place]
                assert_alike(slot, np.asarray(array, np.float32), np.asarray(true, np.float32))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("levels", (512, 256)),
        ("levels", (131_077,)),
        ("levels", (5, 203, 130)),
        ("tiled", (512, 256)),
        ("tiled", (1009, 130)),
        ("tiled", (3, 3, 100, 200)),
    ],
)
def test_a_step_is_in_place_with_a_workspace_of_blocks(package_of: Any, kind: str, shape: tuple[int, ...]) -> None:
    transformation = package_of(kind).mnemosyne(block_size=2048)
    params = [jax.ShapeDtypeStruct(shape, np.float32)]
    state = jax.eval_shape(transformation.init, params)
    compiled = jax.jit(transformation.update, donate_argnums=(0, 1)).lower(params, state, params).compile()
    analysis: Any = compiled.memory_analysis()
    assert analysis.alias_size_in_bytes > 0.99 * analysis.output_size_in_bytes
    assert analysis.temp_size_in_bytes < 40 * 4 * 2048 < 4 * np.prod(shape)


def test_the_state_of_another_cell_is_refused(package_of: Any) -> None:
    params = {"w": jnp.ones((4, 5))}
    state = package_of("lstm").mnemosyne().init(params)
    with pytest.raises(ValueError, match="that of another cell or of other parameters: it has memory first_carried"):
        package_of("adam").mnemosyne().update(params, state, params)
    bare = package_of("bare").mnemosyne()
    other = bare.init(params)._replace(memory={}, recall={"x": jnp.ones(1)})
    with pytest.raises(ValueError, match="recall x .* where .* has memory without slots and recall without arrays"):
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
