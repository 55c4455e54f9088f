"""The tables that ship with scikit-learn, so that they need no download."""

import functools
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ._interface import AbstractData, AbstractDataConfig, Batch, InputKind, Shape, Split, TargetKind

FRACTIONS: dict[Split, float] = {"train": 0.5, "meta": 0.22, "validation": 0.28}
"""Fraction of the rows in each split."""


@functools.cache
def _load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, shuffled once. Inputs have mean 0 and variance 1: each column, or all pixels together."""
    from sklearn import datasets

    loaded = getattr(datasets, f"load_{name}")(return_X_y=True)
    inputs, targets = (np.asarray(array) for array in loaded)
    order = np.random.default_rng(0).permutation(len(inputs))
    inputs, targets = inputs[order].astype(np.float32), targets[order]
    axis = None if name == "digits" else 0
    inputs = (inputs - inputs.mean(axis=axis)) / (inputs.std(axis=axis) + 1e-6)
    if targets.dtype.kind == "f":
        scaled = (targets - targets.mean(axis=0)) / targets.std(axis=0)
        return inputs, scaled.reshape(len(inputs), -1).astype(np.float32)
    return inputs, targets.astype(np.int32)


class TableConfig(AbstractDataConfig):
    """digits (8×8 images), wine, breast_cancer and iris have classes as targets, diabetes a number."""

    kind: Literal["digits", "wine", "breast_cancer", "iris", "diabetes"]
    permuted_inputs: bool = False
    """Whether each task has its own order of the inputs."""

    @property
    def input_kind(self) -> InputKind:
        return "images" if self.kind == "digits" else "numbers"

    @property
    def target_kind(self) -> TargetKind:
        return "numbers" if self.kind == "diabetes" else "classes"

    def build(self) -> "Table":
        return Table(self)


class Table(AbstractData):
    """Rows of a table. Each task has its own order of the classes."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    rows: dict[str, tuple[Float[Array, "rows ..."], Array]]
    """Inputs and targets of each split."""
    permuted: bool = eqx.field(static=True)

    def __init__(self, config: TableConfig):
        inputs, targets = _load(config.kind)
        shape = (8, 8) if config.kind == "digits" else inputs.shape[1:]
        cuts = np.cumsum([int(fraction * len(inputs)) for fraction in FRACTIONS.values()])[:-1]
        splits = zip(FRACTIONS, np.split(inputs.reshape(-1, *shape), cuts), np.split(targets, cuts), strict=True)
        self.rows = {name: (jnp.asarray(x), jnp.asarray(y)) for name, x, y in splits}
        self.name = config.kind + ("-permuted" if config.permuted_inputs else "")
        self.input_shape = shape
        self.target_kind = config.target_kind
        self.outputs = int(targets.max()) + 1 if self.target_kind == "classes" else targets.shape[1]
        self.permuted = config.permuted_inputs

    def draw(self, key: PRNGKeyArray) -> Any:
        keys = jax.random.split(key)
        size = int(np.prod(self.input_shape))
        order = jax.random.permutation(keys[1], size) if self.permuted else jnp.arange(size)
        return jax.random.permutation(keys[0], self.outputs), order

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        labels, order = instance
        inputs, targets = self.rows[split]
        place = jax.random.randint(key, (size,), 0, inputs.shape[0])
        chosen = inputs[place]
        if self.permuted:
            chosen = chosen.reshape(size, -1)[:, order].reshape(chosen.shape)
        return Batch(chosen, labels[targets[place]] if self.target_kind == "classes" else targets[place])
