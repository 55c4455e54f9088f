"""The outputs of a random network, with noise."""

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


class TeacherConfig(AbstractDataConfig):
    """The targets are the outputs of a random network with one hidden layer of sines, with noise."""

    kind: Literal["teacher"] = "teacher"
    dimension: Count = 16
    outputs: Count = 4
    hidden: Count = 32
    noise: Annotated[float, pydantic.Field(ge=0, le=10)] = 0.1
    correlation: Annotated[float, pydantic.Field(ge=0, le=3)] = 1.0
    """The i-th principal direction of the inputs has standard deviation i to the minus this."""

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    @property
    def target_kind(self) -> TargetKind:
        return "numbers"

    def build(self) -> "Teacher":
        return Teacher(self)


class Teacher(AbstractData):
    """Each task has its own network and its own directions."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    config: TeacherConfig = eqx.field(static=True)

    def __init__(self, config: TeacherConfig):
        self.name = f"teacher-{config.dimension}"
        self.input_shape = (config.dimension,)
        self.outputs = config.outputs
        self.target_kind = config.target_kind
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        c, keys = self.config, jax.random.split(key, 3)
        rotation = jnp.linalg.qr(jax.random.normal(keys[0], (c.dimension, c.dimension)))[0]
        scales = jnp.arange(1, c.dimension + 1) ** -c.correlation
        first = 2 * jax.random.normal(keys[1], (c.dimension, c.hidden)) * c.dimension**-0.5
        second = jax.random.normal(keys[2], (c.hidden, c.outputs)) * c.hidden**-0.5
        return scales[:, None] * rotation, first, second

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        directions, first, second = instance
        keys = jax.random.split(split_key(key, split))
        x = jax.random.normal(keys[0], (size, self.config.dimension)) @ directions
        # The inputs' root mean square is one, however they are correlated.
        x = x * jnp.sqrt(self.config.dimension / jnp.sum(directions * directions))
        y = jnp.sin(x @ first) @ second
        return Batch(x, y + self.config.noise * jax.random.normal(keys[1], y.shape))
