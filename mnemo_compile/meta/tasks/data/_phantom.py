"""A phantom of ellipses as a function of the coordinates (Shepp and Logan 1974)."""

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


class PhantomConfig(AbstractDataConfig):
    """Coordinates between -1 and 1, and the sum of the densities of the ellipses that hold them.

    Networks of Fourier features were evaluated on such phantoms (Tancik et al. 2020, arXiv 2006.10739, section 6).
    """

    kind: Literal["phantom"] = "phantom"
    ellipses: Count = 10

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    @property
    def target_kind(self) -> TargetKind:
        return "numbers"

    def build(self) -> "Phantom":
        return Phantom(self)


class Phantom(AbstractData):
    """Each task has its own ellipses."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    ellipses: int = eqx.field(static=True)

    def __init__(self, config: PhantomConfig):
        self.name = f"phantom-{config.ellipses}"
        self.input_shape, self.outputs = (2,), 1
        self.target_kind = config.target_kind
        self.ellipses = config.ellipses

    def draw(self, key: PRNGKeyArray) -> Any:
        keys = jax.random.split(key, 4)
        centre = jax.random.uniform(keys[0], (self.ellipses, 2), minval=-0.6, maxval=0.6)
        radii = jax.random.uniform(keys[1], (self.ellipses, 2), minval=0.1, maxval=0.6)
        angle = jax.random.uniform(keys[2], (self.ellipses,), maxval=jnp.pi)
        return centre, radii, angle, jax.random.normal(keys[3], (self.ellipses,))

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        centre, radii, angle, density = instance
        places = jax.random.uniform(split_key(key, split), (size, 2), minval=-1.0)
        x, y = jnp.moveaxis(places[:, None] - centre, -1, 0)
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        along, across = (cosine * x + sine * y) / radii[:, 0], (cosine * y - sine * x) / radii[:, 1]
        inside = along**2 + across**2 < 1
        return Batch(places, (inside @ density)[:, None])
