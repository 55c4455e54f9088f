"""Symbols to remember, and time series with a plateau, a rise or a fall."""

import jax
import numpy as np

from mnemo_compile.meta.tasks.data._bells import Bells, BellsConfig
from mnemo_compile.meta.tasks.data._copying import BLANK, Copying, CopyingConfig, SIGN


def test_what_is_shown_first_is_said_last_after_the_sign() -> None:
    data = Copying(CopyingConfig(remembered=3, delay=4))
    names = np.asarray(data.draw(jax.random.key(0)))
    batch = data.batch(names, jax.random.key(1), "train", 32)
    inputs, targets = np.asarray(batch.inputs), np.asarray(batch.targets)
    assert inputs.shape == targets.shape == (32, data.input_shape[0])
    np.testing.assert_array_equal(targets[:, -3:], names[inputs[:, :3]])
    assert (targets[:, :-3] == BLANK).all()
    # The sign stands where the next symbol is the first one to say.
    assert (inputs[:, -4] == SIGN).all() and (np.delete(inputs[:, 3:], 3, axis=1) == BLANK).all()


def test_the_slope_of_a_series_tells_its_class() -> None:
    data = Bells(BellsConfig(length=256))
    order = np.asarray(data.draw(jax.random.key(0)))
    batch = data.batch(order, jax.random.key(1), "train", 256)
    series, shape = np.asarray(batch.inputs), np.argsort(order)[np.asarray(batch.targets)]
    # The mean of the first half of a funnel is above that of its second half.
    times = np.arange(256)
    weight = np.clip(series + 0.3, 0, None)
    centre = (weight * times).sum(axis=1) / weight.sum(axis=1)
    early, late = centre[shape == 2].mean(), centre[shape == 1].mean()
    assert early < centre[shape == 0].mean() < late
