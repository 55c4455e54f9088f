"""Random features: a kernel as an inner product, so that attention becomes a quotient of sums."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Kernel = Literal["positive", "hyperbolic", "relu"]


def orthogonal_gaussian(key: PRNGKeyArray, features: int, dim: int) -> Float[Array, "features dim"]:
    """Standard Gaussian vectors as rows, orthogonal within each block of `dim` rows.

    Choromanski et al. 2021, "Rethinking Attention with Performers", section 3.
    """
    direction_key, length_key = jax.random.split(key)
    blocks = -(-features // dim)
    square = jax.random.normal(direction_key, (blocks, dim, dim))
    orthogonal, triangular = jnp.linalg.qr(square)
    # The signs of a QR decomposition are not unique; these make the distribution uniform (Haar).
    signs = jnp.sign(jnp.diagonal(triangular, axis1=-2, axis2=-1))
    rows = (orthogonal * signs[:, None, :]).swapaxes(-1, -2).reshape(blocks * dim, dim)[:features]
    lengths = jnp.linalg.norm(jax.random.normal(length_key, (features, dim)), axis=1)
    return rows * lengths[:, None]


class RandomFeatures(eqx.Module):
    """A map φ with φ(x)ᵀφ(y) ≈ K(x, y).

    `positive` is FAVOR+, φ(x) = exp(Ωx − |x|²/2)/√M. `hyperbolic` averages it over Ω and −Ω. For both, the
    expectation over Ω is the softmax kernel exp(xᵀy) (Choromanski et al. 2021, lemmas 1 and 2). `relu` is
    max(Ωx, 0)/√M + ε, another kernel. Ω is drawn once and not trained.
    """

    projection: Float[Array, "features dim"]
    kernel: Kernel = eqx.field(static=True)

    def __init__(self, features: int, dim: int, kernel: Kernel, *, key: PRNGKeyArray):
        self.projection = orthogonal_gaussian(key, features, dim)
        self.kernel = kernel

    @property
    def size(self) -> int:
        """Features that a call returns."""
        return self.projection.shape[0] * (2 if self.kernel == "hyperbolic" else 1)

    def __call__(self, x: Float[Array, "dim *batch"]) -> Float[Array, "size *batch"]:
        """Features of vectors along the first axis; `bounded` keeps them finite."""
        projected = jnp.tensordot(jax.lax.stop_gradient(self.projection), x, axes=1)
        if self.kernel == "relu":
            return jnp.maximum(projected, 0) * self.size**-0.5 + 1e-3
        half_square = 0.5 * jnp.sum(x * x, axis=0)
        if self.kernel == "positive":
            return jnp.exp(projected - half_square) * self.size**-0.5
        both = jnp.concatenate([projected, -projected], axis=0)
        return jnp.exp(both - half_square) * self.size**-0.5


def bounded(x: Float[Array, "dim *batch"], radius: float = 2.0) -> Float[Array, "dim *batch"]:
    """Vectors along the first axis, shrunk smoothly to a norm below `radius`, so that no φ overflows."""
    square = jnp.sum(x * x, axis=0)
    return x * jax.lax.rsqrt(1 + square * radius**-2)
