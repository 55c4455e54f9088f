"""Rounding to bfloat16 that alternates between up and down, so that the mean over steps is exact."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TURNS = 256
"""The number of thresholds that steps use in turn. The mean over this many steps is right to 2⁻¹⁶."""


def thresholds(inner: tuple[int, ...], step: Float[Array, " rows"], slot: int) -> Float[Array, "rows ..."]:
    """A threshold in (0, 1) for each number of a memory slot.

    Each place gets every one of the `TURNS` thresholds once in `TURNS` steps. They form a lattice whose neighbours in
    place and in time are far apart. The arithmetic is exact in float32.

    **Arguments:**

    - `inner`: shape of a row of the slot, or of what its numbers share a threshold along.
    - `step`: steps taken before this one.
    - `slot`: the slot's place among those of the cell.
    """
    place = np.arange(math.prod(inner)).reshape(1, *inner) * 157 + slot * 41
    turn = 97 * (step - TURNS * jnp.floor(step * (1 / TURNS)))
    total = jnp.asarray(place % TURNS, step.dtype) + turn.reshape(-1, *(1 for _ in inner))
    return (total - TURNS * jnp.floor(total * (1 / TURNS)) + 0.5) * (1 / TURNS)


def dithered(x: Float[Array, "*shape"], threshold: Float[Array, "..."]) -> Float[Array, "*shape"]:
    """x rounded to one of its two neighbours in bfloat16: the higher one where x is above the threshold between them.

    With thresholds spaced evenly in (0, 1) the mean of the results is x. A number of bfloat16 stays as it is. Halfway
    between two neighbours nothing is decided by rounding, so every target decides alike.
    """
    nearest = _to_bfloat16(x)
    # 5/1024 of a number is between a half and one and a half times the distance to its neighbours.
    other = _to_bfloat16(nearest + jnp.sign(x - nearest) * jnp.abs(nearest) * (5 / 1024))
    low, high = jnp.minimum(nearest, other), jnp.maximum(nearest, other)
    return jnp.where(threshold * (high - low) < x - low, high, low)


def _to_bfloat16(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    # A compiler may remove a conversion to bfloat16 and back.
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
