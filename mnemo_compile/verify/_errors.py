"""Relative errors of arrays."""

from collections.abc import Sequence

import numpy as np

FLIPS = 5e-3
"""Fraction of the numbers in bfloat16 that may be a neighbour of the right number: an error within `STEP_BOUND` can
reverse the rounding."""
TINY = 1e-30


def unflipped(values: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The values, with bfloat16 neighbours of the expected numbers replaced by those, if there are only few."""
    if values.shape != expected.shape:
        return values
    spacing = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(expected), TINY))) - 7)
    with np.errstate(invalid="ignore"):
        flips = (values != expected) & (np.abs(wide(values) - expected) <= 1.001 * spacing)
    return np.where(flips, expected, values) if flips.sum() <= max(2, FLIPS * flips.size) else values


def relative_error(values: np.ndarray, expected: np.ndarray) -> float:
    """‖x − y‖ / ‖y‖ over the finite places; infinite if other places are finite or the shapes differ."""
    is_finite = np.isfinite(expected)
    if values.shape != expected.shape or np.any(np.isfinite(values) != is_finite):
        return np.inf
    x, y = (np.where(is_finite, wide(array), 0.0) for array in (values, expected))
    return distance(x - y, y)


def distance(difference: np.ndarray, reference: np.ndarray) -> float:
    """‖difference‖ / ‖reference‖."""
    scale = float(np.linalg.norm(wide(reference).reshape(-1)))
    return float(np.linalg.norm(wide(difference).reshape(-1))) / (scale + TINY)


def wide(array: np.ndarray) -> np.ndarray:
    """The array in float64."""
    return np.asarray(array, np.float64)


def worst(errors: Sequence[float]) -> float:
    """The largest error; NaN counts as infinite."""
    return float(np.max(np.nan_to_num(errors, nan=np.inf)))


NULL = 0.02
"""A singular value below this fraction of the norm belongs to a null direction. There the five Newton–Schulz steps
multiply rounding by up to 485."""
NULL_BOUND = 1.3
"""Largest singular value of what an export may say in null directions. The polynomial itself stays below 1.21."""


def polar_error(values: np.ndarray, expected: np.ndarray, matrices: np.ndarray, scales: np.ndarray) -> float:
    """The largest relative error of scaled polar factors, outside the null directions of their matrices.

    It is infinite where a polar factor is larger than one can be.

    **Arguments:**

    - `values`, `expected`: the polar factors times `scales`. Shape tiles × rows × columns.
    - `matrices`: what they are the polar factors of.
    - `scales`: shape tiles.
    """
    if values.shape != expected.shape or not np.isfinite(values).all():
        return np.inf
    if np.any(np.linalg.norm(wide(values), 2, axis=(1, 2)) > NULL_BOUND * scales):
        return np.inf
    largest = np.abs(matrices).max(axis=(1, 2), keepdims=True)
    left, sizes, right = np.linalg.svd(matrices / (largest + TINY), full_matrices=False)
    is_seen = sizes > NULL * np.linalg.norm(sizes, axis=1, keepdims=True)
    difference, reference = (
        np.swapaxes(left, 1, 2) @ array @ np.swapaxes(right, 1, 2) * is_seen[:, :, None] * is_seen[:, None, :]
        for array in (wide(values) - expected, wide(expected))
    )
    return worst([distance(x, y) for x, y in zip(difference, reference, strict=True)])
