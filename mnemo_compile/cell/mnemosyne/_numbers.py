"""Arithmetic that several parts of Mnemosyne use."""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...step import quotient

TINY = 1e-36
"""Added to divisors, so that 0 / 0 is 0. It matters only where everything is zero."""


def soft_clip(x: Float[Array, "*shape"], limit: float = 3.0) -> Float[Array, "*shape"]:
    """About x where |x| is much smaller than the limit, and about ±limit where it is much larger."""
    return x * jax.lax.rsqrt(1 + jnp.square(x * (1 / limit)))


def relative_log(x: Float[Array, "*shape"], reference: Float[Array, "*shape2"]) -> Float[Array, "*shape3"]:
    """log(x / reference), within ±log(1e6), and 0 where both are 0."""
    return jnp.log(quotient(x + 1e-6 * reference + TINY, reference + 1e-6 * x + TINY))


def valid_count(valid: Array, dtype: jnp.dtype) -> Float[Array, " chunks"]:
    """Coordinates of each chunk."""
    return jnp.sum(valid.astype(dtype), axis=1)


def total(arrays: Sequence[Float[Array, "..."]]) -> Float[Array, "..."]:
    """The sum of one or more arrays, from left to right."""
    return functools.reduce(operator.add, arrays)
