"""Fractals for pre-training without photographs (Kataoka et al. 2021, arXiv 2101.08515)."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

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

CLASSES, MAPS, POINTS, ITERATIONS = 10, 3, 192, 10
"""Classes; affine maps per class; points per image; how often a map moves each point."""


class FractalsConfig(AbstractDataConfig):
    """Grey images. A class is an iterated function system, and its images vary the parameters of its maps."""

    kind: Literal["fractals"] = "fractals"
    side: Count = 8

    @property
    def input_kind(self) -> InputKind:
        return "images"

    @property
    def target_kind(self) -> TargetKind:
        return "classes"

    def build(self) -> "Fractals":
        return Fractals(self)


class Fractals(AbstractData):
    """Each task has its own systems."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)

    def __init__(self, config: FractalsConfig):
        self.name = f"fractals-{config.side}"
        self.input_shape, self.outputs = (config.side, config.side), CLASSES
        self.target_kind = config.target_kind

    def draw(self, key: PRNGKeyArray) -> Any:
        keys = jax.random.split(key, 4)
        # Two rotations around two contractions.
        turns = jax.random.uniform(keys[0], (2, CLASSES, MAPS), maxval=2 * jnp.pi)
        scales = jax.random.uniform(keys[1], (CLASSES, MAPS, 2), minval=0.3, maxval=0.8)
        matrices = _rotations(turns[0]) * scales[..., None, :] @ _rotations(turns[1])
        return matrices, jax.random.uniform(keys[2], (CLASSES, MAPS, 2), minval=-1.0)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        keys = jax.random.split(split_key(key, split), 4)
        label = jax.random.randint(keys[0], (size,), 0, CLASSES)
        matrices, shifts = (each[label] for each in instance)
        matrices = matrices * jax.random.uniform(keys[1], (size, 1, 1, 1), minval=0.8, maxval=1.2)
        which = jax.nn.one_hot(jax.random.randint(keys[2], (ITERATIONS, size, POINTS), 0, MAPS), MAPS)
        start = jax.random.normal(keys[3], (size, POINTS, 2))

        def move(points: Array, choice: Array) -> tuple[Array, None]:
            everywhere = jnp.einsum("bmij,bpj->bpmi", matrices, points) + shifts[:, None]
            return jnp.einsum("bpm,bpmi->bpi", choice, everywhere), None

        points, _ = jax.lax.scan(move, start, which)
        return Batch(_drawn(points, self.input_shape[0]), label)


def _rotations(angle: Float[Array, "*shape"]) -> Float[Array, "*shape 2 2"]:
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cosine, -sine], axis=-1), jnp.stack([sine, cosine], axis=-1)], axis=-2)


def _drawn(points: Float[Array, "batch point 2"], side: int) -> Float[Array, "batch side side"]:
    """How many points fall on each pixel, as a logarithm; mean 0 and variance 1 in each image."""
    centred = points - points.mean(axis=1, keepdims=True)
    place = centred / (jnp.abs(centred).max(axis=(1, 2), keepdims=True) + 1e-6)
    pixel = jax.nn.one_hot(jnp.clip((0.5 * (place + 1) * side).astype(jnp.int32), 0, side - 1), side)
    image = jnp.log1p(jnp.einsum("bpi,bpj->bij", pixel[:, :, 0], pixel[:, :, 1]))
    centred = image - image.mean(axis=(1, 2), keepdims=True)
    return centred / (image.std(axis=(1, 2), keepdims=True) + 1e-6)
