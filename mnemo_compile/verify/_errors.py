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
