"""The copying memory problem (Hochreiter and Schmidhuber 1997; Arjovsky et al. 2015, arXiv 1511.06464, section 5.1)."""

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

SYMBOLS, BLANK, SIGN = 8, 8, 9
"""How many symbols there are to remember; what stands between; the sign to say them."""


class CopyingConfig(AbstractDataConfig):
    """Some symbols, a number of blanks, and a sign after which the symbols are to be said in their order."""

    kind: Literal["copying"] = "copying"
    remembered: Count = 5
    delay: Count = 10

    @property
    def input_kind(self) -> InputKind:
        return "symbols"

    @property
    def target_kind(self) -> TargetKind:
        return "classes"

    def build(self) -> "Copying":
        return Copying(self)


class Copying(AbstractData):
    """Each task has its own names of the symbols that are said."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    config: CopyingConfig = eqx.field(static=True)

    def __init__(self, config: CopyingConfig):
        self.name = f"copying-{config.remembered}-{config.delay}"
        self.input_shape = (2 * config.remembered + config.delay, SYMBOLS + 2)
        self.outputs = SYMBOLS + 1
        self.target_kind = config.target_kind
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.permutation(key, SYMBOLS)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        c = self.config
        symbols = jax.random.randint(split_key(key, split), (size, c.remembered), 0, SYMBOLS)
        blank = jnp.full((size, self.input_shape[0] - c.remembered), BLANK)
        inputs = jnp.concatenate([symbols, blank.at[:, c.delay - 1].set(SIGN)], axis=1)
        return Batch(inputs, jnp.concatenate([blank, instance[symbols]], axis=1))
