"""What the tests of the targets share whose step is that of one tensor."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import hypothesis.strategies as st
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from mnemo_compile.cell import AbstractCell
from mnemo_compile.exporters.one_tensor import View, views_of
from mnemo_compile.step import Layout, shape_numbers
from mnemo_compile.step.reference import layout_of
from tests.helpers import trajectory

TOGETHER = ((97,), (5, 7), (40, 2), (), (41, 3, 3))
"""Shapes of tensors of every role that a shape can have."""

SHAPES: tuple[tuple[int, ...], ...] = (
    *[(), (1,), (7,), (8,), (97,), (256,), (257,), (1021,)],
    *[(5, 7), (7, 5), (33, 31), (1, 12), (12, 1), (12, 12), (13, 13), (25, 11), (60, 2)],
    *[(3, 13, 14), (2, 1, 9, 9), (3, 3, 41), (4, 5, 3, 2), (13, 3, 3, 3)],
)
"""Shapes of all roles: one tile, one more than a tile, prime sizes, and few and many chunks."""


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    """Those shapes, and any of a matrix or a batch of them."""
    side = st.integers(1, 40)
    drawn = st.one_of(st.tuples(side, side), st.tuples(st.integers(1, 3), side, side))
    return st.one_of(st.sampled_from(SHAPES), drawn)


def view_of(cell: AbstractCell, shape: tuple[int, ...]) -> View:
    """How a tensor of this shape is given."""
    return views_of(layout_of(cell, [shape]))[0]


def numbers_of(shape: tuple[int, ...], options: Mapping[str, float]) -> dict[str, np.ndarray]:
    """The numbers that a step of a tensor may take."""
    numbers = {"pretrained": -1, **options, **shape_numbers(shape, 1)}
    return {name: np.asarray(value, np.float32) for name, value in numbers.items()}


def assert_takes_the_steps(
    cell: AbstractCell,
    params: Sequence[np.ndarray],
    history: Sequence[Sequence[np.ndarray]],
    options: Mapping[str, Any],
    held: Sequence[Mapping[str, Any]],
) -> None:
    """What is carried of each tensor after the steps of a history is what the reference has.

    Numbers kept in bfloat16 may be neighbours of the reference's if these are few.
    """
    shapes = [param.shape for param in params]
    packed = [[jnp.asarray(grad) for grad in grads] for grads in history]
    expected, state = trajectory(cell, shapes, [jnp.asarray(param) for param in params], packed, **options)
    refused = sum(not all(np.all(np.isfinite(grad)) for grad in grads) for grads in history)
    layout = layout_of(cell, shapes)
    is_rounded = any(slot.dtype == "bfloat16" for slot in cell.memory_slots)
    for place, (each, view) in enumerate(zip(held, views_of(layout), strict=True)):
        true = view.of(np.asarray(expected[place]))
        assert np.asarray(each["param"]).shape == true.shape
        error, bound = np.asarray(each["param"]) - true, 1e-5 * len(history) * np.linalg.norm(true) + 1e-12
        if is_rounded:
            # What follows from a neighbour is further off.
            off = np.abs(error) > 1e-5 * len(history) * np.abs(true).max() + 1e-12
            assert off.sum() <= _few(true.size) and np.abs(error).max() <= 3e-3
            error = np.where(off, 0, error)
        assert np.linalg.norm(error) <= bound
        assert each["skipped"] == refused and each["step"] == len(history) - refused
        slots = [slot for slot in cell.memory_slots if f"memory.{slot.name}" in each]
        assert slots or not cell.memory_slots
        for slot in slots:
            rows = np.asarray(state.memory[slot.name])
            given = np.asarray(each[f"memory.{slot.name}"]).astype(np.float32)
            if slot.per == "chunk":
                true = rows[layout.starts[place] : layout.starts[place + 1]]
                assert not np.any(given[len(true) :])
                given = given[: len(true)]
            else:
                true = memory_of(layout, place, view, rows)
            _assert_memory(slot.dtype, given, true)
        for name, value in state.recall.items():
            np.testing.assert_allclose(each[f"state.{name}"], np.asarray(value)[place], rtol=1e-4, atol=1e-6)


def memory_of(layout: Layout, place: int, view: View, rows: np.ndarray) -> np.ndarray:
    """The memory of a tensor's coordinates as the functions give it, from rows of chunks."""
    run, inner = layout.runs[place], rows.shape[2:]
    chunks = rows[layout.starts[place] : layout.starts[place + 1]]
    flat = chunks.reshape(layout.sizes[place] // run, -1, *inner)[:, :run]
    parts = [view.of(part.reshape(view.shape)) for part in np.moveaxis(flat.reshape(-1, math.prod(inner)), 1, 0)]
    return np.stack(parts, axis=-1).reshape(*view.axes.sizes, *inner)


def _assert_memory(dtype: str, given: np.ndarray, true: np.ndarray) -> None:
    assert given.shape == true.shape
    # What is denormal JAX takes for zero.
    if dtype == "bfloat16":
        np.testing.assert_array_equal(given, given.astype(ml_dtypes.bfloat16).astype(np.float32))
        difference = np.abs(given - true)
        assert np.sum(difference > 1e-37) <= _few(true.size)
        # A neighbour that was kept earlier is as far off when what it was added to has become small.
        assert np.all(difference <= 2.0**-7 * np.abs(true).max() + 1e-37)
    else:
        smallest = 1e-5 * float(np.abs(true).max()) + 1e-37
        np.testing.assert_allclose(given, true, rtol=1e-3, atol=smallest)


def _few(count: int) -> int:
    return max(1, count // 100)
