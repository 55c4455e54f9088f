"""What the tests of the targets share whose step is that of one tensor."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from mnemo_compile.cell import AbstractCell
from mnemo_compile.step import shape_numbers
from tests.helpers import layout_of, trajectory

TOGETHER = ((97,), (5, 7), (40, 2), (), (3, 3, 41))
"""Shapes of tensors of every role that a shape can have."""


def numbers_of(shape: tuple[int, ...], options: Mapping[str, float]) -> dict[str, np.ndarray]:
    """What every step of a tensor is told, and maybe more."""
    return {name: np.asarray(value, np.float32) for name, value in {**options, **shape_numbers(shape)}.items()}


def assert_takes_the_steps(
    cell: AbstractCell,
    params: Sequence[np.ndarray],
    history: Sequence[Sequence[np.ndarray]],
    options: Mapping[str, float],
    held: Sequence[Mapping[str, Any]],
) -> None:
    """What is carried of each tensor after the steps of a history is what the reference has.

    Numbers kept in bfloat16 may be neighbours of the reference's if these are few.
    """
    shapes = [param.shape for param in params]
    packed = [[jnp.asarray(grad) for grad in grads] for grads in history]
    expected, state = trajectory(cell, shapes, [jnp.asarray(param) for param in params], packed, **options)
    refused = sum(not all(np.all(np.isfinite(grad)) for grad in grads) for grads in history)
    layout, start = layout_of(cell, shapes), 0
    is_rounded = any(slot.dtype == "bfloat16" for slot in cell.memory_slots)
    for place, (each, chunks, size) in enumerate(zip(held, layout.chunks, layout.sizes, strict=True)):
        true = np.asarray(expected[place]).reshape(-1)
        error, bound = np.asarray(each["param"]) - true, 1e-5 * len(history) * np.linalg.norm(true) + 1e-12
        if is_rounded:
            # What follows from a neighbour is further off.
            off = np.abs(error) > 1e-5 * len(history) * np.abs(true).max() + 1e-12
            assert off.sum() <= _few(size) and np.abs(error).max() <= 3e-3
            error = np.where(off, 0, error)
        assert np.linalg.norm(error) <= bound
        assert each["skipped"] == refused and each["step"] == len(history) - refused
        for slot in cell.memory_slots:
            rows = np.asarray(state.memory[slot.name])[start : start + chunks]
            flat = rows if slot.per == "chunk" else rows.reshape(-1, *slot.shape)[:size]
            given = np.asarray(each[f"memory.{slot.name}"]).astype(np.float32)
            assert given.shape == flat.shape
            # What is denormal JAX takes for zero.
            if slot.dtype == "bfloat16":
                np.testing.assert_array_equal(given, given.astype(ml_dtypes.bfloat16).astype(np.float32))
                difference = np.abs(given - flat)
                assert np.sum(difference > 1e-37) <= _few(flat.size)
                # A neighbour that was kept earlier is as far off when what it was added to has become small.
                assert np.all(difference <= 2.0**-7 * np.abs(flat).max() + 1e-37)
            else:
                smallest = 1e-5 * float(np.abs(flat).max()) + 1e-37
                np.testing.assert_allclose(given, flat, rtol=1e-3, atol=smallest)
        for name, value in state.recall.items():
            np.testing.assert_allclose(each[f"state.{name}"], np.asarray(value)[place], rtol=1e-4, atol=1e-6)
        start += chunks


def _few(count: int) -> int:
    return max(1, count // 100)
