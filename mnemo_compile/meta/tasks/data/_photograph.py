"""A photograph as a function of the coordinates, as in Sitzmann et al. 2020 (arXiv 2006.09661), section 4.1."""

import functools
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._interface import AbstractData, AbstractDataConfig, Batch, Count, InputKind, Shape, Split, SPLITS, TargetKind


@functools.cache
def _load() -> np.ndarray:
    """The two photographs that ship with scikit-learn, with mean 0 and variance 1."""
    from sklearn import datasets

    images = np.stack(datasets.load_sample_images().images).astype(np.float32)
    return (images - images.mean()) / images.std()


class PhotographConfig(AbstractDataConfig):
    """The coordinates of a pixel, between -1 and 1, and its colour."""

    kind: Literal["photograph"] = "photograph"
    side: Count = 48
    """Of the square that a task cuts out, in pixels."""

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    @property
    def target_kind(self) -> TargetKind:
        return "numbers"

    def build(self) -> "Photograph":
        return Photograph(self)


class Photograph(AbstractData):
    """Each task has its own square. A quarter of its pixels is held out."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    side: int = eqx.field(static=True)
    images: Float[Array, "photograph rows columns 3"]
    pixels: dict[str, Int[Array, " pixels"]]
    """The numbers of the pixels of each split."""

    def __init__(self, config: PhotographConfig):
        self.name = f"photograph-{config.side}"
        self.input_shape, self.outputs = (2,), 3
        self.target_kind = config.target_kind
        self.side = config.side
        self.images = jnp.asarray(_load())
        order = np.random.default_rng(0).permutation(config.side**2)
        parts = np.split(order, [len(order) * 3 // 4, len(order) * 7 // 8])
        self.pixels = {split: jnp.asarray(part) for split, part in zip(SPLITS, parts, strict=True)}

    def draw(self, key: PRNGKeyArray) -> Any:
        keys, (count, rows, columns, _) = jax.random.split(key, 3), self.images.shape
        corner = (
            jax.random.randint(keys[0], (), 0, count),
            jax.random.randint(keys[1], (), 0, rows - self.side),
            jax.random.randint(keys[2], (), 0, columns - self.side),
            0,
        )
        return jax.lax.dynamic_slice(self.images, corner, (1, self.side, self.side, 3)).reshape(-1, 3)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        pixels = jax.random.choice(key, self.pixels[split], (size,))
        places = jnp.stack([pixels // self.side, pixels % self.side], axis=1)
        return Batch(2 * places / (self.side - 1) - 1, instance[pixels])
