"""Sparse parities (Barak et al. 2022, arXiv 2207.08799)."""

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


class ParityConfig(AbstractDataConfig):
    """Random signs; the class says whether the product of a few of them is negative."""

    kind: Literal["parity"] = "parity"
    dimension: Count = 16
    """How many signs are shown."""
    counted: Annotated[int, pydantic.Field(ge=1, le=8)] = 3
    """How many of them count."""

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    @property
    def target_kind(self) -> TargetKind:
        return "classes"

    def build(self) -> "Parity":
        return Parity(self)

    @pydantic.model_validator(mode="after")
    def _has_enough_signs(self) -> "ParityConfig":
        if self.counted > self.dimension:
            raise ValueError(f"counted = {self.counted} are more signs than dimension = {self.dimension}")
        return self


class Parity(AbstractData):
    """Each task counts the signs at places of its own."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    config: ParityConfig = eqx.field(static=True)

    def __init__(self, config: ParityConfig):
        self.name = f"parity-{config.counted}-of-{config.dimension}"
        self.input_shape = (config.dimension,)
        self.outputs = 2
        self.target_kind = config.target_kind
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.permutation(key, self.config.dimension)[: self.config.counted]

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        signs = jax.random.rademacher(split_key(key, split), (size, self.config.dimension), jnp.float32)
        return Batch(signs, (jnp.prod(signs[:, instance], axis=1) < 0).astype(jnp.int32))
