"""Noisy quadratics with a chosen spectrum."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float, PRNGKeyArray

from ._family import AbstractFamily, AbstractFamilyConfig
from .data import Batch, Count, Split, split_key
from .networks import Params, Tensor


class QuadraticConfig(AbstractFamilyConfig):
    """½ (x − x*)ᵀ H (x − x*) / n with noise in the gradient, where H has a chosen spectrum."""

    kind: Literal["quadratic"]
    dimension: Count = 64
    condition: Annotated[float, pydantic.Field(ge=1, le=1e8)] = 1e3
    """Largest over smallest eigenvalue. The eigenvalues are evenly spaced in their logarithm."""
    noise: Annotated[float, pydantic.Field(ge=0, le=1e3)] = 0.1
    rotated: bool = True
    """Whether the eigenvectors of H are random, and not the axes of x."""

    def build(self) -> "Quadratic":
        return Quadratic(self)


class Quadratic(AbstractFamily):
    """Each task has its own eigenvectors, and its own minimum at distance √n from the start."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: QuadraticConfig = eqx.field(static=True)

    def __init__(self, config: QuadraticConfig):
        self.name = f"quadratic-{config.dimension}-{config.condition:g}{'' if config.rotated else '-straight'}"
        self.tensors = (Tensor((config.dimension,)),)
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        c, keys = self.config, jax.random.split(key)
        axes = jnp.eye(c.dimension)
        if c.rotated:
            axes = jnp.linalg.qr(jax.random.normal(keys[0], axes.shape))[0]
        return axes, jax.random.normal(keys[1], (c.dimension,))

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split) -> Batch:
        axes, minimum = instance
        c = self.config
        noise = c.noise * jax.random.normal(split_key(key, split), (c.dimension,))
        roots = jnp.exp(-0.5 * jnp.log(c.condition) * jnp.linspace(0, 1, c.dimension))
        # Only training sees the noise.
        return Batch(roots[:, None] * axes, minimum, noise if split == "train" else jnp.zeros_like(noise))

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        (x,) = params
        assert batch.weight is not None
        # The gradient's noise has the size of a coordinate's gradient at the start, whatever the dimension is.
        steady = 0.5 * jnp.sum(jnp.square(batch.inputs @ (x - batch.targets))) + jnp.sum(batch.weight * x)
        return steady / x.shape[0]

    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        return jnp.array(jnp.nan)
