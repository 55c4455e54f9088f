"""Masked symbols."""

import jax
import numpy as np

from mnemo_compile.meta.tasks.data._markov import Markov, MarkovConfig


def test_only_hidden_symbols_count_and_the_others_are_shown() -> None:
    data = Markov(MarkovConfig(symbols=12, masked=0.3))
    batch = data.batch(data.draw(jax.random.key(0)), jax.random.key(1), "train", 512)
    is_hidden = np.asarray(batch.inputs == 12)
    assert batch.weight is not None
    np.testing.assert_array_equal(np.asarray(batch.weight) > 0, is_hidden)
    assert abs(is_hidden.mean() - 0.3) < 0.03
    np.testing.assert_array_equal(np.asarray(batch.inputs)[~is_hidden], np.asarray(batch.targets)[~is_hidden])
