"""Properties of the step that every variant of Mnemosyne has, and the known optimizers that some variants are."""

import functools
import json
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnemo_compile.cell import AbstractCell, cell_config
from mnemo_compile.program import compile_cell, CompiledCell, evaluate
from mnemo_compile.step import reference, ROLES, shape_role
from mnemo_compile.step._rounding import dithered, thresholds
from tests.cells import variants
from tests.helpers import learned, normal, relative, trajectory

SHAPES = [(), (11,), (64, 3), (9, 8), (3, 3, 5)]
"""Shapes of every role, from less than one chunk to more chunks than the sample has."""


@functools.lru_cache(maxsize=4)
def compiled(variant: str) -> tuple[AbstractCell, CompiledCell]:
    cell = learned(cell_config(json.loads(variant)).build(), 1)
    return cell, compile_cell(cell)


def some(count: int) -> hypothesis.settings:
    # Each variant is compiled, so shrinking would take longer than reading the failure.
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    return hypothesis.settings(max_examples=count, deadline=None, phases=phases)


def holds(variant: dict[str, Any], seed: int) -> None:
    cell, _ = compiled(json.dumps(variant))
    params = normal(seed, SHAPES)
    history = [normal(seed + 1 + step, SHAPES) for step in range(3)]
    after, state = trajectory(cell, SHAPES, params, history)
    assert all(bool(jnp.all(jnp.isfinite(value))) for value in jax.tree.leaves((after, state)))
    for start, end in zip(params, after, strict=True):
        assert relative(end, start) > 1e-5, "a step moves every tensor"

    # A power of two scales float32 and bfloat16 without rounding.
    scaled, _ = trajectory(cell, SHAPES, params, [[2.0**-9 * grad for grad in grads] for grads in history])
    for start, a, b in zip(params, after, scaled, strict=True):
        assert relative(b - start, a - start) <= 1e-3, "the scale of the loss changes nothing"

    bad = [grad.ravel().at[0].set(jnp.nan).reshape(grad.shape) if grad.size == 11 else grad for grad in history[0]]
    again, poisoned = trajectory(cell, SHAPES, params, [*history, bad])
    assert int(poisoned.skipped) == 1 and int(poisoned.step) == 3
    for a, b in zip(
        jax.tree.leaves((again, poisoned.memory, poisoned.recall)),
        jax.tree.leaves((after, state.memory, state.recall)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)

    for scale in (0.0, 1e12, 1e-12):
        edge, _ = trajectory(cell, SHAPES, params, [[scale * grad for grad in grads] for grads in history[:2]])
        for start, end in zip(params, edge, strict=True):
            assert bool(jnp.all(jnp.isfinite(end)))
            if scale == 0.0:
                assert bool(jnp.all(end == start)), "a zero gradient moves nothing"


@hypothesis.given(variant=variants(), seed=st.integers(0, 2**16))
@some(2)
def test_what_must_hold_of_every_variant(variant: dict[str, Any], seed: int) -> None:
    holds(variant, seed)


@pytest.mark.slow
@hypothesis.given(variant=variants(), seed=st.integers(0, 2**16))
@some(40)
def test_what_must_hold_of_many_variants(variant: dict[str, Any], seed: int) -> None:
    holds(variant, seed)


def rows_of_a_step(cell: AbstractCell, seed: int, steps: int = 3) -> dict[str, np.ndarray]:
    """The inputs of a step's phases: chunks of all tensors, each with the row of its tensor."""
    layout = reference.layout_of(cell, SHAPES)
    params, state = trajectory(cell, SHAPES, normal(seed, SHAPES), [normal(seed + 1 + t, SHAPES) for t in range(steps)])
    grad = reference.pack(layout, normal(seed + 9, SHAPES))
    owner = np.asarray(layout.owner.argmax(axis=1))
    rows: dict[str, Any] = {"param": reference.pack(layout, params), "grad": grad, "valid": layout.valid}
    rows.update((f"memory.{name}", value) for name, value in state.memory.items())
    rows.update((f"shape.{name}", value[owner]) for name, value in layout.shape_rows.items())
    rows.update((f"state.{name}", value[owner]) for name, value in state.recall.items())
    numbers = {
        "clock.step": 3.0,
        "clock.total": 20.0,
        "hyper.lr": 1.0,
        "hyper.weight_decay": 0.1,
        "hyper.pretrained": -1.0,
        "finite": 1.0,
    }
    rows.update((name, np.full(len(owner), value, np.float32)) for name, value in numbers.items())
    return {"owner": owner, **{name: np.asarray(value) for name, value in rows.items()}}


def run(program: Any, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return evaluate(program, {value.name: rows[value.name] for value in program.inputs})


@hypothesis.given(variant=variants(), seed=st.integers(0, 2**16), cut=st.integers(1, 30))
@some(3)
def test_any_split_of_the_chunks_gives_the_same_step(variant: dict[str, Any], seed: int, cut: int) -> None:
    cell, programs = compiled(json.dumps(variant))
    rows = rows_of_a_step(cell, seed)
    owner = rows.pop("owner")
    parts = [slice(0, cut), slice(cut, None)]

    def total(values: np.ndarray, of: np.ndarray) -> np.ndarray:
        return np.stack([values[of == tensor].sum(axis=0) for tensor in range(len(SHAPES))])

    def summed(phase: str) -> None:
        """Checks that a phase's sums are those of its parts, and gives them to the chunks of their tensor."""
        if phase not in programs.programs:
            return
        whole = run(programs.programs[phase], rows)
        apart = [run(programs.programs[phase], {key: value[part] for key, value in rows.items()}) for part in parts]
        for name, value in whole.items():
            sums = sum(total(each[name], owner[part]) for each, part in zip(apart, parts, strict=True))
            np.testing.assert_allclose(sums, total(value, owner), rtol=1e-5, atol=1e-5 * float(np.abs(value).max()))
            rows[name] = total(value, owner)[owner]

    summed("measure")
    summed("encode")
    if "share" in programs.programs:
        first = [int(np.argmax(owner == tensor)) for tensor in range(len(SHAPES))]
        shared = run(programs.programs["share"], {key: value[first] for key, value in rows.items()})
        rows.update(
            (name, np.broadcast_to(value.sum(axis=0), (len(owner), *value.shape[1:]))) for name, value in shared.items()
        )
    rows.update(
        (key, value) for key, value in run(programs.programs["recall"], rows).items() if key.startswith("context")
    )
    whole = run(programs.programs["update"], rows)
    apart = [run(programs.programs["update"], {key: value[part] for key, value in rows.items()}) for part in parts]
    for name, value in whole.items():
        joined = np.concatenate([each[name] for each in apart])
        np.testing.assert_allclose(joined, value, rtol=1e-5, atol=1e-6 * float(np.abs(value).max()) + 1e-30)

    # A slot has no effect in tensors that do not have it.
    roles = np.array([shape_role(shape) for shape in SHAPES])[owner]
    for slot in cell.memory_slots:
        if slot.roles is not None:
            name, lacks = f"memory.{slot.name}", ~np.isin(roles, slot.roles)
            rows[name] = np.where(lacks.reshape(-1, *(1,) * (rows[name].ndim - 1)), np.float32(0), rows[name])
    without = run(programs.programs["update"], rows)
    np.testing.assert_array_equal(without["param"], whole["param"])


@hypothesis.given(variant=variants())
@hypothesis.settings(max_examples=10, deadline=None)
def test_bytes_of_state_are_known_before_there_is_any(variant: dict[str, Any]) -> None:
    cell = cell_config(variant).build()
    shape = (24, 16)
    role, chunks = shape_role(shape), 24 * 16 // cell.chunk_length
    sizes = {"float32": 4, "bfloat16": 2}
    total = sum(
        sizes[slot.dtype] * chunks * int(np.prod(slot.row_shape(cell.chunk_length)))
        for slot in cell.memory_slots
        if slot.applies_to(role)
    )
    assert total / (24 * 16) == sum(slot.bytes_per_parameter(role, cell.chunk_length) for slot in cell.memory_slots)


NOTHING_LEARNED = {
    "kind": "mnemosyne",
    "network": False,
    "chunk_length": 8,
    "sample_chunks": 64,
    "prior": {"tile": 0, "nesterov": 0.0, "guard": 0.0},
}
"""A cell whose direction is that of its memory over the second moment."""

WISE = st.sampled_from([[], ["vector"], list(ROLES)])


def directions(cell: AbstractCell, seed: int, shape: tuple[int, ...], steps: int) -> jax.Array:
    """The change of a tensor in its last step, on random gradients."""
    history = [normal(seed + 1 + step, [shape]) for step in range(steps)]
    params = normal(seed, [shape])
    before, _ = trajectory(cell, [shape], params, history[:-1])
    after, _ = trajectory(cell, [shape], params, history)
    return (before[0] - after[0]).ravel()


def expected(transformation: Any, seed: int, shape: tuple[int, ...], steps: int) -> jax.Array:
    state, direction = transformation.init(normal(seed, [shape])), [jnp.zeros(shape)]
    for step in range(steps):
        direction, state = transformation.update(normal(seed + 1 + step, [shape]), state)
    return direction[0].ravel()


def assert_parallel(direction: jax.Array, true: jax.Array) -> None:
    """The same direction, of any length."""
    assert relative(direction / jnp.linalg.norm(direction), true / jnp.linalg.norm(true)) <= 2e-4


@hypothesis.given(
    seed=st.integers(0, 2**16),
    momentum=st.sampled_from([0.5, 0.9]),
    shape=st.sampled_from([(20, 30), (17,)]),
    wise=WISE,
    moments=st.sampled_from(["none", "full"]),
)
@some(4)
def test_one_feature_that_is_one_is_bias_corrected_momentum_and_over_the_second_moment_adam(
    seed: int, momentum: float, shape: tuple[int, ...], wise: list[str], moments: str
) -> None:
    variant = {**NOTHING_LEARNED, "momentum": [momentum], "coordinate_wise": wise, "second_moments": moments}
    cell = cell_config({**variant, "second_moment": 0.99}).build()
    if moments == "full":
        optimizer = optax.scale_by_adam(b1=momentum, b2=0.99, eps=0.0)
    else:
        optimizer = optax.ema(momentum, debias=True)
    assert_parallel(directions(cell, seed, shape, 6), expected(optimizer, seed, shape, 6))


def test_factors_of_a_tensor_of_rank_one_are_its_second_moment() -> None:
    """Chunks are rows here. The square of each gradient is the same outer product, up to a factor."""
    random = np.random.default_rng(0)
    pattern = np.exp(random.normal(size=(12, 1)) + random.normal(size=(1, 8)))
    shape, moved = (12, 8), []
    for moments in ("factored", "full"):
        cell = cell_config({**NOTHING_LEARNED, "second_moments": moments}).build()
        signs = np.random.default_rng(1)
        history = [
            [jnp.asarray(pattern * signs.choice([-1.0, 1.0], shape) * (1 + step), jnp.float32)] for step in range(5)
        ]
        params = normal(0, [shape])
        after, _ = trajectory(cell, [shape], params, history)
        moved.append((after[0] - params[0]).ravel())
    assert relative(*moved) <= 1e-4


@hypothesis.given(seed=st.integers(0, 2**16), exponent=st.integers(-20, 20), discount=st.sampled_from([0.0, 0.9]))
@hypothesis.settings(max_examples=10, deadline=None)
def test_rounding_to_bfloat16_keeps_the_mean(seed: int, exponent: int, discount: float) -> None:
    """The mean of 256 rounded steps is exact for a constant, and for a running mean within what a step rounds."""
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(3, 50)) * 2.0**exponent, jnp.float32)
    memory, mean = jnp.zeros_like(x), jnp.zeros_like(x)
    for step in range(256 if discount == 0.0 else 512):
        new = discount * memory + (1 - discount) * x
        memory = dithered(new, thresholds(new.shape[1:], jnp.full(3, float(step)), 0))
        if step >= 256 or discount == 0.0:
            mean = mean + memory / 256
    np.testing.assert_allclose(mean, x, rtol=2e-5 if discount == 0.0 else 2e-3)
    np.testing.assert_array_equal(dithered(memory, jnp.full_like(memory, 0.01)), memory)
