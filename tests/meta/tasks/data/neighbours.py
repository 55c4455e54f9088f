"""How well the nearest neighbour tells the label, for data whose examples of one class look alike."""

from typing import Any

import jax
import numpy as np

from mnemo_compile.meta.tasks import Batch
from tests.meta.tasks.families import supervised


def accuracy(batch: Batch, others: Batch) -> float:
    """Fraction of examples whose nearest neighbour among the others has their label."""
    flat, of_batch = (np.asarray(each.inputs).reshape(len(each.targets), -1) for each in (others, batch))
    nearest = ((flat**2).sum(axis=1) - 2 * of_batch @ flat.T).argmin(axis=1)
    return float(np.mean(np.asarray(others.targets)[nearest] == np.asarray(batch.targets)))


def assert_neighbours_tell_labels(data: dict[str, Any]) -> None:
    """In a task the neighbours in the training split have the same labels; those of another task have others."""
    family = supervised(data, batch=1024)
    instance, another = family.draw(jax.random.key(0)), family.draw(jax.random.key(5))
    train = family.batch(instance, jax.random.key(1), "train")
    assert accuracy(family.batch(instance, jax.random.key(1), "meta"), train) > 0.7
    assert accuracy(family.batch(another, jax.random.key(1), "meta"), train) < 0.5
    assert set(np.asarray(train.targets).tolist()) == set(range(10))
