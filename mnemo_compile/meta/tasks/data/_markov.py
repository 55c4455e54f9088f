"""Text of a random language."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, PRNGKeyArray

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
from ._masking import mask

BRANCHES = 4
"""How many symbols can follow a context, at most."""


class MarkovConfig(AbstractDataConfig):
    """A Markov chain over symbols: few symbols can follow a context, and some symbols are rare."""

    kind: Literal["markov"] = "markov"
    symbols: Annotated[int, pydantic.Field(ge=2, le=4096)] = 32
    places: Count = 16
    order: Literal[1, 2] = 1
    """How many symbols make a context."""
    masked: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    """Fraction of places whose symbol is hidden and predicted; 0 to predict the next symbol."""

    @property
    def input_kind(self) -> InputKind:
        return "symbols"

    @property
    def target_kind(self) -> TargetKind:
        return "classes"

    def build(self) -> "Markov":
        return Markov(self)


class Markov(AbstractData):
    """Each task has its own language."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    config: MarkovConfig = eqx.field(static=True)

    def __init__(self, config: MarkovConfig):
        what = "masked" if config.masked else "next"
        self.name = f"markov{config.order}-{what}-{config.symbols}"
        # One symbol more stands for a hidden one.
        self.input_shape = (config.places, config.symbols + 1)
        self.outputs = config.symbols
        self.target_kind = config.target_kind
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        c, keys = self.config, jax.random.split(key, 3)
        popularity = -1.0 * jnp.log(1.0 + jnp.arange(c.symbols))
        contexts = c.symbols**c.order
        choices = jax.random.categorical(keys[0], popularity, shape=(contexts, BRANCHES))
        return choices, jax.random.gumbel(keys[1], (contexts, BRANCHES)), jax.random.permutation(keys[2], c.symbols)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        c, (choices, weights, names) = self.config, instance
        keys = jax.random.split(split_key(key, split), 4)
        start = jax.random.randint(keys[0], (c.order, size), 0, c.symbols)
        picks = jax.random.gumbel(keys[1], (c.places + 1, size, BRANCHES))

        def step(last: Array, pick: Array) -> tuple[Array, Array]:
            context = last[-1] if c.order == 1 else last[-2] * c.symbols + last[-1]
            following = jnp.take_along_axis(
                choices[context], jnp.argmax(weights[context] + pick, axis=1, keepdims=True), axis=1
            )[:, 0]
            return jnp.concatenate([last[1:], following[None]]), following

        _, text = jax.lax.scan(step, start, picks)
        text = names[text.T]
        if not c.masked:
            return Batch(text[:, :-1], text[:, 1:])
        return mask(text[:, 1:], keys[2], c.masked, c.symbols)
