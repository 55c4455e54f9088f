"""Two spirals in the plane (Lang and Witbrock 1988)."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import PRNGKeyArray

from ._interface import AbstractData, AbstractDataConfig, Batch, InputKind, Shape, Split, split_key, TargetKind


class SpiralsConfig(AbstractDataConfig):
    """Points of two arms; the target is the arm."""

    kind: Literal["spirals"] = "spirals"
    noise: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.05

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    @property
    def target_kind(self) -> TargetKind:
        return "classes"

    def build(self) -> "Spirals":
        return Spirals(self)


class Spirals(AbstractData):
    """Each task has its own rotation."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    noise: float = eqx.field(static=True)

    def __init__(self, config: SpiralsConfig):
        self.name = f"spirals-{config.noise:g}"
        self.input_shape, self.outputs = (2,), 2
        self.target_kind = config.target_kind
        self.noise = config.noise

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.uniform(key, (), maxval=2 * jnp.pi)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        keys = jax.random.split(split_key(key, split), 3)
        arm = jax.random.randint(keys[0], (size,), 0, 2)
        radius = jnp.sqrt(jax.random.uniform(keys[1], (size,)))
        angle = instance + jnp.pi * arm + 3 * jnp.pi * radius
        points = (radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])).T
        # Each coordinate has variance 1.
        return Batch(2 * (points + self.noise * jax.random.normal(keys[2], points.shape)), arm)
