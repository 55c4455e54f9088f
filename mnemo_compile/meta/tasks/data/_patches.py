"""Patches of the two photographs that ship with scikit-learn."""

import functools
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ._interface import AbstractData, AbstractDataConfig, Batch, InputKind, Shape, Split, SPLITS, TargetKind

PATCH, HOLE = 8, 2
"""Sides of a patch and of its hidden middle, in pixels."""


@functools.cache
def _load() -> dict[Split, np.ndarray]:
    """The left, the middle and the right of the photographs, with mean 0 and variance 1."""
    from sklearn import datasets

    images = np.stack(datasets.load_sample_images().images).astype(np.float32)
    images = (images - images.mean()) / images.std()
    splits = np.split(images, [images.shape[2] * 3 // 4, images.shape[2] * 7 // 8], axis=2)
    return dict(zip(SPLITS, splits, strict=True))


class PatchesConfig(AbstractDataConfig):
    """8×8 pixels of a photograph, in colour. The middle is hidden and predicted."""

    kind: Literal["patches"] = "patches"
    hides: bool = True
    """Whether the middle is hidden. A network that reconstructs the whole patch sees all of it."""

    @property
    def input_kind(self) -> InputKind:
        return "images"

    @property
    def target_kind(self) -> TargetKind:
        return "numbers"

    def build(self) -> "Patches":
        return Patches(self)


class Patches(AbstractData):
    """Each task has its own order of the colours."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    hides: bool = eqx.field(static=True)
    photographs: dict[str, Float[Array, "photograph rows columns 3"]]
    """The photographs of each split."""

    def __init__(self, config: PatchesConfig):
        self.name = "patches"
        self.input_shape = (PATCH, PATCH, 3)
        self.outputs = HOLE * HOLE * 3
        self.target_kind = config.target_kind
        self.hides = config.hides
        self.photographs = {split: jnp.asarray(images) for split, images in _load().items()}

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.permutation(key, 3)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        images = self.photographs[split]
        count, rows, columns, _ = images.shape
        keys = jax.random.split(key, 3)
        which = jax.random.randint(keys[0], (size, 1, 1), 0, count)
        row = jax.random.randint(keys[1], (size, 1, 1), 0, rows - PATCH + 1) + jnp.arange(PATCH)[:, None]
        column = jax.random.randint(keys[2], (size, 1, 1), 0, columns - PATCH + 1) + jnp.arange(PATCH)
        patch = images[which, row, column][..., instance]
        middle = slice((PATCH - HOLE) // 2, (PATCH + HOLE) // 2)
        target = patch[:, middle, middle].reshape(size, -1)
        return Batch(patch.at[:, middle, middle].set(0) if self.hides else patch, target)
