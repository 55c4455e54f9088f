"""Regimes of gradients: the sizes that verification tries."""

from collections.abc import Sequence

import numpy as np

ORDINARY = "ordinary"
SPARSE = "sparse"
SCALES = {ORDINARY: 1.0, "zero": 0.0, "huge": 1e13, "tiny": 1e-13, "denormal": 1e-41, "enormous": 1e18}
"""The size of the gradients in each regime. In `mixed` sizes differ by coordinate; in `sparse` most gradients are 0."""
REFUSED = ("enormous", "not finite")
"""Regimes in which the step is refused."""


def gradient_sizes(regimes: Sequence[str], random: np.random.Generator, length: int) -> np.ndarray:
    """The size of each coordinate's gradient."""
    sizes = np.array([[SCALES.get(regime, 1.0)] for regime in regimes]) * np.ones(length)
    mixed = np.array([regime == "mixed" for regime in regimes])
    return np.where(mixed[:, None], 10 ** random.uniform(-8, 8, sizes.shape), sizes)
