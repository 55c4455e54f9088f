"""Cylinder, bell and funnel: three classes of time series (Saito 1994)."""

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
    InputKind,
    Shape,
    Split,
    split_key,
    TargetKind,
)


class BellsConfig(AbstractDataConfig):
    """A plateau, a rise or a fall between two random times, under noise; zero outside."""

    kind: Literal["cylinder-bell-funnel"] = "cylinder-bell-funnel"
    length: Annotated[int, pydantic.Field(ge=16, le=4096)] = 128

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    @property
    def target_kind(self) -> TargetKind:
        return "classes"

    def build(self) -> "Bells":
        return Bells(self)


class Bells(AbstractData):
    """Each task has its own order of the classes."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)

    def __init__(self, config: BellsConfig):
        self.name = f"cylinder-bell-funnel-{config.length}"
        self.input_shape, self.outputs = (config.length,), 3
        self.target_kind = config.target_kind

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.permutation(key, self.outputs)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        keys, length = jax.random.split(split_key(key, split), 5), self.input_shape[0]
        shape = jax.random.randint(keys[0], (size,), 0, 3)
        # Of 128 times, the first is between 16 and 32, and the last 32 to 96 later.
        first = length * jax.random.uniform(keys[1], (size, 1), minval=1 / 8, maxval=1 / 4)
        duration = length * jax.random.uniform(keys[2], (size, 1), minval=1 / 4, maxval=3 / 4)
        progress = (jnp.arange(length) - first) / duration
        profile = jnp.stack([jnp.ones_like(progress), progress, 1 - progress])[shape, jnp.arange(size)]
        height = 6 + jax.random.normal(keys[3], (size, 1))
        series = height * profile * ((progress >= 0) & (progress <= 1)) + jax.random.normal(keys[4], (size, length))
        # Most series have about this mean and this deviation.
        return Batch((series - 2) / 3, instance[shape])
