"""Sparse parities."""

import itertools

import jax
import numpy as np

from mnemo_compile.meta.tasks import SPLITS
from tests.meta.tasks.families import supervised


def test_one_set_of_signs_explains_all_parities() -> None:
    family = supervised({"kind": "parity", "dimension": 8, "counted": 2}, batch=256)
    instance, explanations = family.draw(jax.random.key(0)), []
    for split in SPLITS:
        batch = family.batch(instance, jax.random.key(1), split)
        signs, targets = np.asarray(batch.inputs), np.asarray(batch.targets)
        sets = itertools.combinations(range(8), 2)
        explanations.append([each for each in sets if ((signs[:, each].prod(axis=1) < 0) == targets).all()])
    assert len(explanations[0]) == 1 and explanations[1] == explanations[2] == explanations[0]
