"""Moments of a chunk's gradient."""

import jax.numpy as jnp
from jaxtyping import Array, Float

LARGEST_SQUARE = 1e34


def sum_of_squares(grad: Float[Array, "chunks length"]) -> Float[Array, " chunks"]:
    """Σ g² of each chunk; infinite where it is so large that a discounted sum of squares could overflow steps later."""
    square = jnp.sum(grad * grad, axis=1)
    return jnp.where(square < LARGEST_SQUARE, square, jnp.inf)
