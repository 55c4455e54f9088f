"""Patches of photographs, whose middle is hidden."""

import jax
import numpy as np

from tests.meta.tasks.families import supervised


def test_the_hidden_middle_is_the_target() -> None:
    hidden, whole = (supervised({"kind": "patches", "hides": hides}, batch=16) for hides in (True, False))
    instance, key = hidden.draw(jax.random.key(0)), jax.random.key(1)
    inputs, targets = (np.asarray(x) for x in hidden.batch(instance, key, "train")[:2])
    shown = np.array(whole.batch(instance, key, "train").inputs)
    assert not inputs[:, 3:5, 3:5].any()
    np.testing.assert_array_equal(shown[:, 3:5, 3:5].reshape(16, -1), targets)
    shown[:, 3:5, 3:5] = 0
    np.testing.assert_array_equal(shown, inputs)
