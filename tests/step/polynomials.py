"""The polar factor in NumPy: its polynomial of singular values, in float64."""

import numpy as np

from mnemo_compile.step._polar import COEFFICIENTS


def of_sizes(sizes: np.ndarray) -> np.ndarray:
    """What the polynomials make of singular values that are fractions of the norm."""
    for a, b, c in COEFFICIENTS:
        sizes = a * sizes + b * sizes**3 + c * sizes**5
    return sizes


def true_polar(matrices: np.ndarray) -> np.ndarray:
    """The polar factors of tiles, in float64."""
    matrices = np.asarray(matrices, np.float64)
    left, sizes, right = np.linalg.svd(matrices, full_matrices=False)
    norm = np.linalg.norm(sizes, axis=-1, keepdims=True)
    return left @ (of_sizes(sizes / np.where(norm == 0, 1, norm))[..., None] * right)
