"""Symbols that are predicted in another order."""

import jax
import numpy as np

from mnemo_compile.meta.tasks import SPLITS
from mnemo_compile.meta.tasks.data._rearranged import Rearranged, RearrangedConfig


def test_each_target_comes_from_one_place_and_every_place_is_a_target() -> None:
    data = Rearranged(RearrangedConfig(symbols=6, places=5))
    instance = data.draw(jax.random.key(0))
    for split in SPLITS:
        batch = data.batch(instance, jax.random.key(1), split, 256)
        targets, inputs = np.asarray(batch.targets), np.asarray(batch.inputs)
        is_from = (targets[:, :, None] == inputs[:, None, :]).all(axis=0)
        np.testing.assert_array_equal(is_from.sum(axis=0), 1)
        np.testing.assert_array_equal(is_from.sum(axis=1), 1)
