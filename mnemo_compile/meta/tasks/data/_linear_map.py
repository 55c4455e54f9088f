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
    """The variance of the i-th input is i to the power of minus this."""

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    @property
    def target_kind(self) -> TargetKind:
        return "numbers"

    def build(self) -> "LinearMap":
        return LinearMap(self)


class LinearMap(AbstractData):
    """Each task has its own matrix."""

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
        left, _, right = jnp.linalg.svd(
            jax.random.normal(key, (self.config.inputs, self.config.outputs)), full_matrices=False
        )
        rank = right.shape[0]
        values = jnp.exp(-jnp.log(self.config.condition) * jnp.linspace(0, 1, rank))
        matrix = (left * values) @ right
        # The outputs have mean square 1 where all inputs have variance 1.
        return matrix * (self.config.outputs / jnp.sum(values**2)) ** 0.5

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        shape = (size, self.config.inputs)
        deviations = jnp.arange(1.0, self.config.inputs + 1) ** (-0.5 * self.config.decay)
        inputs = deviations * jax.random.normal(split_key(key, split), shape)
        return Batch(inputs, inputs @ instance)
