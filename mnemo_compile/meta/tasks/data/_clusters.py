"""Classes that are mixtures of normal distributions."""

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


class ClustersConfig(AbstractDataConfig):
    """Classes are mixtures of normal distributions, bent by a random map."""

    kind: Literal["clusters"] = "clusters"
    dimension: Count = 16
    classes: Annotated[int, pydantic.Field(ge=2, le=256)] = 8
    modes: Annotated[int, pydantic.Field(ge=1, le=16)] = 3
    """Normal distributions per class."""
    spread: Annotated[float, pydantic.Field(gt=0, le=10)] = 0.7
    """Standard deviation of each; the centres have 1."""

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    @property
    def target_kind(self) -> TargetKind:
        return "classes"

    def build(self) -> "Clusters":
        return Clusters(self)


class Clusters(AbstractData):
    """Each task has its own centres and its own map."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    config: ClustersConfig = eqx.field(static=True)

    def __init__(self, config: ClustersConfig):
        self.name = f"clusters-{config.dimension}"
        self.input_shape = (config.dimension,)
        self.outputs = config.classes
        self.target_kind = config.target_kind
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        c, keys = self.config, jax.random.split(key)
        centres = jax.random.normal(keys[0], (c.classes * c.modes, c.dimension))
        return centres, jax.random.normal(keys[1], (c.dimension, c.dimension)) * c.dimension**-0.5

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        centres, bend = instance
        keys = jax.random.split(split_key(key, split))
        mode = jax.random.randint(keys[0], (size,), 0, centres.shape[0])
        x = centres[mode] + self.config.spread * jax.random.normal(keys[1], (size, centres.shape[1]))
        return Batch(x + jnp.tanh(2 * x @ bend), mode % self.config.classes)
