"""What a task computes, in a few numbers, so that a baseline knows whether it still speaks of the same task.

A fingerprint is of numbers and not of code: renaming and rewriting change nothing, and other data, another network or
another loss do.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
import pydantic

from ..tasks import Batch, Split
from ._suites import TaskConfig
from ._training import batch_key, run, starts

SEEDS = range(3)
"""The first one counts. There are as many as most tasks have, so that one compiled program serves a training too."""
STEPS = 5
"""How many steps are taken, and how many batches of each split are looked at."""
TOLERANCE = 1e-3
"""Relative difference that is rounding. In so few steps the roundings of two machines stay far below it."""
ACCURACY_TOLERANCE = 0.01


class Fingerprint(pydantic.BaseModel):
    """The first numbers of a task's training with AdamW at 1e-3."""

    shapes: list[list[int]]
    """Of the parameters."""
    start: list[float]
    """Size and direction of the parameters at a fresh start."""
    data: list[float]
    """Size and direction of the first batches of the training and the validation split."""
    losses: list[float]
    """Training loss before each step, and the validation loss after the last."""
    accuracy: float | None
    """Accuracy on the validation split after the last step; null for a task without classes."""

    def agrees_with(self, other: "Fingerprint") -> bool:
        """Whether both are the same but for rounding."""
        return self.has_data_of(other) and self.computes_like(other)

    def has_data_of(self, other: "Fingerprint") -> bool:
        """Whether the data are the same but for rounding."""
        return _close(self.data, other.data)

    def computes_like(self, other: "Fingerprint") -> bool:
        """Whether everything but the data is the same but for rounding."""
        if self.shapes != other.shapes or (self.accuracy is None) != (other.accuracy is None):
            return False
        return (
            _close(self.start, other.start)
            and np.allclose(self.losses, other.losses, rtol=TOLERANCE)
            and abs((self.accuracy or 0) - (other.accuracy or 0)) <= ACCURACY_TOLERANCE
        )


def fingerprint(task: TaskConfig) -> Fingerprint:
    """The fingerprint of a task on this machine."""
    return _fingerprint(task.model_dump_json())


@functools.cache
def _fingerprint(config: str) -> Fingerprint:
    task = TaskConfig.model_validate_json(config)
    family = task.build()
    fresh, instances = starts(task.model_copy(update={"before": None}), SEEDS)
    learned = fresh if task.before is None else starts(_shortened(task), SEEDS)[0]
    start, params, instance = jax.tree.map(lambda rows: rows[0], (fresh, learned, instances))

    def compute(seed: Any) -> tuple[Any, Any]:
        keys = jax.vmap(lambda step: jax.random.fold_in(batch_key(seed), step))(np.arange(STEPS))

        def batches(split: Split) -> Batch:
            return jax.vmap(lambda key: family.batch(instance, key, split))(keys)

        return [batches("train"), batches("validation")], run(family, optax.adamw(1e-3), params, instance, seed, STEPS)

    batches, first = jax.jit(compute)(np.uint32(SEEDS[0]))
    accuracy = float(np.mean(first.accuracies))
    return Fingerprint(
        shapes=[list(shape) for shape in family.shapes],
        start=figures(start),
        data=figures(jax.tree.leaves(batches)),
        losses=[rounded(loss) for loss in (*first.losses, np.mean(first.validation_losses))],
        accuracy=None if np.isnan(accuracy) else rounded(accuracy),
    )


def _shortened(task: TaskConfig) -> TaskConfig:
    """The task with as short a training before it as the fingerprint's own: a longer one would add up roundings."""
    before = task.before
    return task.model_copy(update={"before": before and before.model_copy(update={"steps": STEPS})})


def figures(arrays: Sequence[Any]) -> list[float]:
    """The root mean square of all numbers, and their projection onto a fixed direction, which sees their order."""
    numbers = np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])
    direction = np.cos(np.arange(1, numbers.size + 1))
    return [rounded(np.sqrt(np.mean(numbers**2))), rounded(numbers @ direction / np.sqrt(numbers.size))]


def rounded(value: Any) -> float:
    """A number with six digits."""
    return float(f"{float(value):.6g}")


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether sizes and directions are the same, relative to the size."""
    return bool(np.allclose(one, other, rtol=0, atol=TOLERANCE * max(one[0], other[0])))
