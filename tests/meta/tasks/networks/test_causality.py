"""A network that predicts the next symbol sees nothing of what comes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta.tasks.families import start, supervised, TEXT


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
def test_outputs_depend_on_no_later_symbol(kind: str) -> None:
    family = supervised(TEXT, {"kind": kind, "width": 16})
    params = start(family, jax.random.key(0))
    inputs = family.batch(family.draw(jax.random.key(1)), jax.random.key(2), "train").inputs
    changed = inputs.at[:, 9:].set((inputs[:, 9:] + 1) % 12)
    one, two = (family.network(params, x) for x in (inputs, changed))
    np.testing.assert_allclose(one[:, :9], two[:, :9], atol=1e-5)
    assert float(jnp.abs(one[:, 9:] - two[:, 9:]).max()) > 1e-3
