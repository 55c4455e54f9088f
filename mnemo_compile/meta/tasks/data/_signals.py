"""One-dimensional signals in the manner of MNIST-1D (Greydanus 2020, arXiv 2011.14439)."""

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

CORNERS = 12
"""How many points a template is drawn through."""


class SignalsConfig(AbstractDataConfig):
    """Each class has a template, which is moved, stretched, tilted and covered with noise."""

    kind: Literal["signals"] = "signals"
    length: Count = 40
    classes: Annotated[int, pydantic.Field(ge=2, le=256)] = 10
    noise: Annotated[float, pydantic.Field(ge=0, le=10)] = 0.25

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    @property
    def target_kind(self) -> TargetKind:
        return "classes"

    def build(self) -> "Signals":
        return Signals(self)


class Signals(AbstractData):
    """Each task has its own templates."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    config: SignalsConfig = eqx.field(static=True)

    def __init__(self, config: SignalsConfig):
        self.name = f"signals-{config.length}"
        self.input_shape = (config.length,)
        self.outputs = config.classes
        self.target_kind = config.target_kind
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.normal(key, (self.config.classes, CORNERS))

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        length = self.config.length
        keys = jax.random.split(split_key(key, split), 6)
        label = jax.random.randint(keys[0], (size,), 0, self.config.classes)
        shift = jax.random.uniform(keys[1], (size, 1), minval=0.0, maxval=0.5)
        stretch = jax.random.uniform(keys[2], (size, 1), minval=1.2, maxval=2.0)
        # Places are counted in corners of the template; outside the template the signal is zero.
        place = (jnp.linspace(0, 1, length) - shift) * stretch * (CORNERS - 1)
        before = jnp.clip(jnp.floor(place), 0, CORNERS - 2).astype(jnp.int32)
        template = instance[label]
        low = jnp.take_along_axis(template, before, axis=1)
        high = jnp.take_along_axis(template, before + 1, axis=1)
        inside = (place >= 0) & (place <= CORNERS - 1)
        signal = jnp.where(inside, low + (high - low) * (place - before), 0)
        tilt = 0.5 * jax.random.normal(keys[3], (size, 1)) * jnp.linspace(-1, 1, length)
        amplitude = jnp.exp(0.3 * jax.random.normal(keys[4], (size, 1)))
        noise = self.config.noise * jax.random.normal(keys[5], (size, length))
        return Batch(signal * amplitude + tilt + noise, label)
