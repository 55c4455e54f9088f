"""Random symbols, predicted in another order."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
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


class RearrangedConfig(AbstractDataConfig):
    """Symbols are drawn at random. At each place the network predicts the symbol that stands at another place."""

    kind: Literal["rearranged"] = "rearranged"
    symbols: Annotated[int, pydantic.Field(ge=2, le=4096)] = 32
    places: Count = 16

    @property
    def input_kind(self) -> InputKind:
        return "symbols"

    @property
    def target_kind(self) -> TargetKind:
        return "classes"

    def build(self) -> "Rearranged":
        return Rearranged(self)


class Rearranged(AbstractData):
    """Each task has its own order of the places."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    config: RearrangedConfig = eqx.field(static=True)

    def __init__(self, config: RearrangedConfig):
        self.name = f"rearranged-{config.places}-of-{config.symbols}"
        self.input_shape = (config.places, config.symbols)
        self.outputs = config.symbols
        self.target_kind = config.target_kind
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.permutation(key, self.config.places)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        c = self.config
        text = jax.random.randint(split_key(key, split), (size, c.places), 0, c.symbols)
        return Batch(text, text[:, instance])
