"""Sums of sinusoids, of which networks learn the slow ones first (Rahaman et al. 2018, arXiv 1806.08734)."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
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


class SinusoidsConfig(AbstractDataConfig):
    """A number, and the sum of sinusoids of 1, 2, 3, … periods over its range, all of one amplitude."""

    kind: Literal["sinusoids"] = "sinusoids"
    count: Count = 10

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    @property
    def target_kind(self) -> TargetKind:
        return "numbers"

    def build(self) -> "Sinusoids":
        return Sinusoids(self)


class Sinusoids(AbstractData):
    """Each task has its own phases."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    count: int = eqx.field(static=True)

    def __init__(self, config: SinusoidsConfig):
        self.name = f"sinusoids-{config.count}"
        self.input_shape, self.outputs = (1,), 1
        self.target_kind = config.target_kind
        self.count = config.count

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.uniform(key, (self.count,), maxval=2 * jnp.pi)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        place = jax.random.uniform(split_key(key, split), (size, 1))
        waves = jnp.sin(2 * jnp.pi * place * jnp.arange(1, self.count + 1) + instance)
        # Both have variance 1.
        return Batch((place - 0.5) * 12**0.5, waves.sum(axis=1, keepdims=True) * (2 / self.count) ** 0.5)
