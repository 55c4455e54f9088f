"""Grey images of simple figures."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._interface import AbstractData, AbstractDataConfig, Batch, InputKind, Shape, Split, split_key, TargetKind


class ShapesConfig(AbstractDataConfig):
    """One of ten figures at one of ten places, of any size and brightness, with noise."""

    kind: Literal["shapes"] = "shapes"
    side: Annotated[int, pydantic.Field(ge=8, le=64)] = 16
    labels: Literal["figure", "place"] = "figure"
    noise: Annotated[float, pydantic.Field(ge=0, le=10)] = 0.3

    @property
    def input_kind(self) -> InputKind:
        return "images"

    @property
    def target_kind(self) -> TargetKind:
        return "classes"

    def build(self) -> "Shapes":
        return Shapes(self)


class Shapes(AbstractData):
    """Each task has its own order of the labels."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    config: ShapesConfig = eqx.field(static=True)

    def __init__(self, config: ShapesConfig):
        self.name = f"shapes-{config.side}-{config.labels}"
        self.input_shape = (config.side, config.side)
        self.outputs = 10
        self.target_kind = config.target_kind
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.permutation(key, self.outputs)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        keys = jax.random.split(split_key(key, split), 6)
        figure = jax.random.randint(keys[0], (size,), 0, 10)
        place = jax.random.randint(keys[1], (size,), 0, 10)
        # Two rows of five places, and a little off them.
        centre = jnp.stack([place // 5 - 0.5, 0.35 * (place % 5 - 2)], axis=1)
        centre = centre + 0.1 * jax.random.uniform(keys[2], (size, 2), minval=-1.0)
        radius = jax.random.uniform(keys[3], (size, 1, 1), minval=0.25, maxval=0.4)
        axis = jnp.linspace(-1, 1, self.config.side)
        y = (axis[:, None] - centre[:, 0, None, None]) / radius
        x = (axis[None, :] - centre[:, 1, None, None]) / radius
        drawn = _figures(x, y)[jnp.arange(size), figure].astype(jnp.float32)
        bright = jax.random.uniform(keys[4], (size, 1, 1), minval=0.7, maxval=1.3)
        image = 2 * (bright * drawn - 0.2) + self.config.noise * jax.random.normal(keys[5], drawn.shape)
        return Batch(image, instance[figure if self.config.labels == "figure" else place])


def _figures(x: Float[Array, "batch 1 side"], y: Float[Array, "batch side 1"]) -> Bool[Array, "batch 10 side side"]:
    """Whether a pixel is in each of the figures; coordinates are from the figure's centre, in units of its radius."""
    distance, square = jnp.sqrt(x * x + y * y), jnp.maximum(jnp.abs(x), jnp.abs(y))
    inside = square < 1
    return jnp.stack(
        [
            distance < 1,
            (distance < 1) & (distance > 0.6),
            inside,
            inside & (square > 0.6),
            inside & (jnp.minimum(jnp.abs(x), jnp.abs(y)) < 0.3),
            inside & (jnp.abs(jnp.abs(x) - jnp.abs(y)) < 0.4),
            inside & (y > 2 * jnp.abs(x) - 1),
            inside & (jnp.sin(5 * x) > 0),
            inside & (jnp.sin(5 * y) > 0),
            jnp.abs(x) + jnp.abs(y) < 1,
        ],
        axis=1,
    )
