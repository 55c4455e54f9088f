"""The shapes that signatures promise are checked while tests run."""

import jax.numpy as jnp
import jaxtyping
import pytest

from tests.helpers import learned_cell


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        learned_cell().measure(jnp.ones((2, 32)), jnp.ones(3))
