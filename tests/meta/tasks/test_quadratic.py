"""A quadratic has the spectrum that its configuration names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta.tasks.families import family_of


@pytest.mark.parametrize("rotated", [True, False])
def test_a_quadratic_has_its_spectrum(rotated: bool) -> None:
    config = {"kind": "quadratic", "dimension": 8, "condition": 100, "rotated": rotated, "noise": 0}
    family = family_of(config)
    batch = family.batch(family.draw(jax.random.key(0)), jax.random.key(1), "train")
    hessian = 8 * jax.hessian(lambda x: family.loss([x], batch))(jnp.zeros(8))
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian), np.geomspace(0.01, 1, 8), rtol=1e-3)
    assert (np.abs(np.asarray(hessian) - np.diag(np.diag(hessian))).max() > 0.05) == rotated
