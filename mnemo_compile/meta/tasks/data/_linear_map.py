"""Linear maps to be found from examples: least squares, as ill-conditioned as one likes."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import PRNGKeyArray

from ._interface import (
    AbstractData,
    AbstractDataConfig,
    Batch,
    Count,
    InputKind,
    Shape,
    Split,
    split_key,
    TargetKind,
)


class LinearMapConfig(AbstractDataConfig):
    """Normal inputs, and what a fixed matrix makes of them."""

    kind: Literal["linear-map"] = "linear-map"
    inputs: Count = 10
    outputs: Count = 6
    condition: Annotated[float, pydantic.Field(ge=1, le=1e8)] = 1.0
    """Largest over smallest singular value of the matrix. They are evenly spaced in their logarithm."""
    decay: Annotated[float, pydantic.Field(ge=0, le=4)] = 0.0
    """Along the i-th of some random axes the inputs have a variance of i to the power of minus this, over the mean."""

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    @property
    def target_kind(self) -> TargetKind:
        return "numbers"

    def build(self) -> "LinearMap":
        return LinearMap(self)


class LinearMap(AbstractData):
    """Each task has its own matrix, and its own axes."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    config: LinearMapConfig = eqx.field(static=True)

    def __init__(self, config: LinearMapConfig):
        self.name = f"linear-map-{config.inputs}x{config.outputs}-{config.condition:g}-{config.decay:g}"
        self.input_shape, self.outputs = (config.inputs,), config.outputs
        self.target_kind = config.target_kind
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        c, keys = self.config, jax.random.split(key)
        left, _, right = jnp.linalg.svd(jax.random.normal(keys[0], (c.inputs, c.outputs)), full_matrices=False)
        rank = right.shape[0]
        values = jnp.exp(-jnp.log(c.condition) * jnp.linspace(0, 1, rank))
        matrix = (left * values) @ right
        variances = jnp.arange(1.0, c.inputs + 1) ** -c.decay
        axes = jnp.linalg.qr(jax.random.normal(keys[1], (c.inputs, c.inputs)))[0]
        # Inputs have a mean square of 1, and so have outputs where the inputs do not decay.
        roots = jnp.sqrt(variances / variances.mean())[:, None] * axes
        return matrix * (c.outputs / jnp.sum(values**2)) ** 0.5, roots

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        matrix, roots = instance
        inputs = jax.random.normal(split_key(key, split), (size, self.config.inputs)) @ roots
        return Batch(inputs, inputs @ matrix)
