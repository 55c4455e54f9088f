"""Friedman's first regression problem (Friedman 1991; `make_friedman1` of scikit-learn)."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import PRNGKeyArray

from ._interface import AbstractData, AbstractDataConfig, Batch, InputKind, Shape, Split, split_key, TargetKind

COLUMNS, MEAN, DEVIATION = 10, 14.4, 5.0
"""How many columns the table has; the mean and the deviation of the target, rounded."""


class FriedmanConfig(AbstractDataConfig):
    """A table of ten uniform columns, five of which the target depends on."""

    kind: Literal["friedman"] = "friedman"
    noise: Annotated[float, pydantic.Field(ge=0, le=10)] = 1.0

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    @property
    def target_kind(self) -> TargetKind:
        return "numbers"

    def build(self) -> "Friedman":
        return Friedman(self)


class Friedman(AbstractData):
    """Each task has its own order of the columns."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    noise: float = eqx.field(static=True)

    def __init__(self, config: FriedmanConfig):
        self.name = f"friedman-{config.noise:g}"
        self.input_shape, self.outputs = (COLUMNS,), 1
        self.target_kind = config.target_kind
        self.noise = config.noise

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.permutation(key, COLUMNS)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        keys = jax.random.split(split_key(key, split))
        table = jax.random.uniform(keys[0], (size, COLUMNS))
        a, b, c, d, e = jnp.moveaxis(table[:, instance[:5]], -1, 0)
        target = 10 * jnp.sin(jnp.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e
        target = target + self.noise * jax.random.normal(keys[1], (size,))
        return Batch((table - 0.5) * 12**0.5, (target[:, None] - MEAN) / DEVIATION)
