"""What must hold of a step: splits, scale, edge shapes, poison, and what the cell is before it has learned."""

import itertools
import math
from typing import Any

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnemo_compile.cell import cell_config, DECAY
from mnemo_compile.step import Layout, reference, sampled_chunks
from tests.helpers import learned_cell, normal, relative, trajectory

# Few sets of shapes, so that each is compiled once and met by many examples.
SHAPES = st.sampled_from(
    [[()], [(1,), (7,)], [(31,), (32,), (33,), (5, 1)], [(13, 11), (), (3, 3, 4, 2)], [(40, 40), (2,)]]
)
FEW = hypothesis.settings(max_examples=5, deadline=None)


def whole_rows(cell, shape, seed):
    layout = reference.layout_of(cell, [shape])
    param, grad, *memory = (
        reference.pack(layout, normal(seed + i, [shape])) for i in range(2 + len(cell.memory_slots))
    )
    memory = {slot: jnp.abs(m) for slot, m in zip((slot.name for slot in cell.memory_slots), memory, strict=True)}
    return layout, param, grad, memory


@eqx.filter_jit
def encoded_sum(cell, block, moments, numbers, state):
    rows = len(block["param"])

    def of_rows(tree):
        return {name: jnp.broadcast_to(value, (rows, *value.shape)) for name, value in tree.items()}

    groups = {"moments": of_rows(moments), "shape": of_rows(numbers), "state": of_rows(state)}
    (encoded,) = reference.run_phase(cell, "encode", {**block, **groups}).values()
    return {name: jnp.sum(value, axis=0) for name, value in encoded.items()}


@hypothesis.given(
    seed=st.integers(0, 2**16),
    coordinates=st.sampled_from([2, 333, 1500]),
    sizes=st.lists(st.sampled_from([1, 2, 5]), min_size=1),
)
@FEW
def test_summary_of_a_tensor_is_the_sum_over_any_split(seed: int, coordinates: int, sizes: list[int]) -> None:
    cell = learned_cell()
    layout, param, grad, memory = whole_rows(cell, (coordinates,), seed)
    moments = {name: jnp.sum(value) for name, value in cell.measure(param, grad).items()}
    state = {name: value + 1.0 for name, value in cell.initial_state().items()}
    numbers = {name: jnp.asarray(value[0]) for name, value in layout.shape_rows.items()}
    rows = {"param": param, "grad": grad, "memory": memory, "valid": jnp.asarray(layout.valid)}
    whole = encoded_sum(cell, rows, moments, numbers, state)

    parts, start = [], 0
    for size in itertools.cycle(sizes):
        size = size if start + size <= len(param) else 1
        if start == len(param):
            break
        block = jax.tree.map(lambda x, a=start, b=start + size: x[a:b], rows)
        parts.append(encoded_sum(cell, block, moments, numbers, state))
        start += size
    for name in whole:
        assert relative(jnp.sum(jnp.stack([part[name] for part in parts]), axis=0), whole[name]) <= 1e-5


@hypothesis.given(chunks=st.integers(1, 10_000), sample=st.integers(1, 64))
def test_sample_is_evenly_spaced_and_complete_where_it_can_be(chunks: int, sample: int) -> None:
    taken = sampled_chunks(chunks, sample)
    assert len(taken) == min(chunks, sample) == len(set(taken))
    assert taken[0] == 0 and taken[-1] < chunks
    gaps = np.diff(taken)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
    if chunks > sample:
        assert taken[-1] < chunks - 1, "the last, partly filled chunk of a large tensor is never sampled"


@hypothesis.given(
    seed=st.integers(0, 2**16), shapes=SHAPES, exponent=st.integers(-20, 20), total=st.sampled_from([0.0, 40.0])
)
@FEW
def test_scaling_the_loss_changes_no_update(seed: int, shapes: list, exponent: int, total: float) -> None:
    cell = learned_cell()
    params = normal(seed, shapes)
    history = [normal(seed + 1 + t, shapes) for t in range(4)]
    # A power of two scales float32 without rounding, so that only the step's own arithmetic can differ.
    scaled = [[2.0**exponent * g for g in grads] for grads in history]
    plain, _ = trajectory(cell, shapes, params, history, total_steps=total)
    other, _ = trajectory(cell, shapes, params, scaled, total_steps=total)
    for start, a, b in zip(params, plain, other, strict=True):
        assert relative(b - start, a - start) <= 1e-3


@hypothesis.given(
    seed=st.integers(0, 2**16),
    shapes=SHAPES,
    scale=st.sampled_from([0.0, 1e-30, 1e-12, 1.0, 1e12]),
    steps=st.integers(1, 6),
)
@FEW
def test_edge_shapes_and_magnitudes_stay_finite(seed: int, shapes: list, scale: float, steps: int) -> None:
    cell = learned_cell()
    params = normal(seed, shapes)
    history = [normal(seed + 1 + t, shapes, scale) for t in range(steps)]
    after, state = trajectory(cell, shapes, params, history)
    assert int(state.step) == steps and int(state.skipped) == 0
    for start, end in zip(params, after, strict=True):
        assert bool(jnp.all(jnp.isfinite(end)))
        if scale == 0.0:
            assert bool(jnp.all(end == start)), "a zero gradient moves nothing"


@hypothesis.given(
    seed=st.integers(0, 2**16),
    shapes=SHAPES,
    poison=st.sampled_from([math.nan, math.inf, -math.inf, 3e38, 2e17]),
    place=st.integers(0, 10**6),
    before=st.integers(0, 3),
)
@FEW
def test_a_non_finite_gradient_changes_nothing_and_is_counted(
    seed: int, shapes: list, poison: float, place: int, before: int
) -> None:
    cell = learned_cell()
    params = normal(seed, shapes)
    history = [normal(seed + 1 + t, shapes) for t in range(before)]
    expected, state = trajectory(cell, shapes, params, history)
    bad = normal(seed + 99, shapes)
    victim = bad[place % len(bad)]
    bad[place % len(bad)] = victim.ravel().at[place % victim.size].set(poison).reshape(victim.shape)
    after, poisoned = trajectory(cell, shapes, params, [*history, bad])
    assert int(poisoned.skipped) == 1 and int(poisoned.step) == before
    for a, b in zip(
        jax.tree.leaves((after, poisoned.memory, poisoned.recall)),
        jax.tree.leaves((expected, state.memory, state.recall)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shapes", [[()], [(40, 40), (2,)]])
def test_magnitudes_that_leap_between_steps_poison_nothing(shapes: list) -> None:
    cell = learned_cell()
    scales = [1e14, 0.0, 1e-14, 1e10, 0.0, 0.0, 1.0, 1e-30, 1e14]
    history = [normal(t, shapes, scale) for t, scale in enumerate(scales)]
    after, state = trajectory(cell, shapes, normal(99, shapes), history)
    assert int(state.step) == len(scales)
    for value in jax.tree.leaves((after, state)):
        assert bool(jnp.all(jnp.isfinite(value)))


TRANSPOSED = [(13, 11), (10, 10), (4, 9), (40, 2), (3, 130)]
"""Matrices of several tiles that are turned or square, and embeddings."""


@hypothesis.given(seed=st.integers(0, 2**16), total=st.sampled_from([0.0, 4.0]))
@FEW
def test_a_transposed_matrix_gets_the_transposed_update(seed: int, total: float) -> None:
    cell = cell_config({"kind": "mnemosyne", "network": False, "momentum": [0.9], "prior": {"tile": 5}}).build()
    turned = [shape[::-1] for shape in TRANSPOSED]
    params, history = normal(seed, TRANSPOSED), [normal(seed + 1 + step, TRANSPOSED) for step in range(3)]
    options: Any = {"weight_decay": 5.0, "total_steps": total}
    plain, _ = trajectory(cell, TRANSPOSED, params, history, **options)
    other, _ = trajectory(cell, turned, [p.T for p in params], [[g.T for g in grads] for grads in history], **options)
    for start, x, y in zip(params, plain, other, strict=True):
        assert relative(y.T - start, x - start) <= 1e-3


@hypothesis.given(seed=st.integers(0, 2**16), total=st.sampled_from([0.0, 40.0]))
@FEW
def test_weight_decay_is_decoupled(seed: int, total: float) -> None:
    cell: Any = learned_cell()
    shapes = [(6, 5), (3,)]
    params = normal(seed, shapes)
    zero = [[jnp.zeros(shape) for shape in shapes]]
    after, _ = trajectory(cell, shapes, params, zero, lr=0.5, weight_decay=20.0, total_steps=total)
    schedule = cell.prior.timing({"step": jnp.zeros(1), "total": jnp.full(1, total)}).schedule
    for start, end in zip(params, after, strict=True):
        np.testing.assert_allclose(end, start * (1 - 0.5 * 20.0 * DECAY * schedule), rtol=1e-6)


@pytest.mark.parametrize("shape", [(20, 30), (17,)])
def test_before_it_has_learned_the_direction_without_tiles_is_that_of_adam(shape: tuple[int, ...]) -> None:
    prior = {"tile": 0, "nesterov": 0.0}
    cell = cell_config({"kind": "mnemosyne", "momentum": [0.9, 0.9], "second_moment": 0.99, "prior": prior}).build()
    adam = optax.scale_by_adam(b1=0.9, b2=0.99, eps=0.0)
    params = normal(0, [shape])
    history = [normal(1 + t, [shape]) for t in range(12)]
    state = adam.init(params)
    direction: Any = None
    for t in range(12):
        direction, state = adam.update(history[t], state)
    before, _ = trajectory(cell, [shape], params, history[:-1])
    after, _ = trajectory(cell, [shape], params, history)
    moved = (before[0] - after[0]).ravel()
    cosine = float(moved @ direction[0].ravel() / jnp.linalg.norm(moved) / jnp.linalg.norm(direction[0].ravel()))
    assert cosine > 1 - 1e-5


def test_a_row_among_many_that_gets_a_gradient_moves_by_a_bounded_step() -> None:
    cell = learned_cell()
    shape = (100_000, 4)
    row = 54_321
    grad = jnp.zeros(shape).at[row].set(1.0)
    params = [jnp.ones(shape)]
    after, _ = trajectory(cell, [shape], params, [[grad]] * 3)
    moved = jnp.abs(after[0] - params[0])
    assert float(jnp.max(moved)) < 0.5 and float(jnp.max(moved[row])) > 0
    assert not bool(jnp.any(jnp.delete(moved, row, axis=0)))


def test_a_tensor_without_coordinates_has_no_layout() -> None:
    with pytest.raises(ValueError, match="without coordinates"):
        Layout(((0, 3),), 32, 16)
