"""Moments of a chunk's gradient."""

import jax.numpy as jnp
from jaxtyping import Array, Float

LARGEST_SQUARE = 1e34
"""A larger sum of squares counts as infinite, which refuses the step."""


def sum_of_squares(grad: Float[Array, "chunks length"]) -> Float[Array, " chunks"]:
    """Σ g² of each chunk; infinite where a discounted sum of such squares could overflow in later steps."""
    square = jnp.sum(grad * grad, axis=1)
    return jnp.where(square < LARGEST_SQUARE, square, jnp.inf)
