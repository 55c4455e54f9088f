"""What users of other optimizers write, and parameters of float64."""

import warnings
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest


def test_a_learning_rate_of_another_optimizer_is_remarked(optax_package: ModuleType) -> None:
    for lr in (1e-3, np.float32(3e-4)):
        with pytest.warns(UserWarning, match=r"lr is .*, and multiplies a step whose size is learned.* leave lr out"):
            optax_package.mnemosyne(lr=lr)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for lr in (0.0, 0.01, 1, jnp.float32(1e-3), optax.constant_schedule(1e-3)):
            optax_package.mnemosyne(lr=lr)


def test_counts_may_be_those_of_numpy(optax_package: ModuleType) -> None:
    params, grads = {"w": jnp.ones((9, 70))}, {"w": jnp.linspace(-1, 1, 630).reshape(9, 70)}
    moves = []
    for total, block in ((4, 320), (np.int64(4), np.int32(320))):
        transformation = optax_package.mnemosyne(total_steps=total, block_size=block)
        moves.append(transformation.update(grads, transformation.init(params), params)[0]["w"])
    np.testing.assert_array_equal(moves[0], moves[1])
    for name in ("total_steps", "block_size"):
        for wrong in (True, 0, 1.5):
            with pytest.raises(ValueError, match=rf"{name} .*must be a positive integer.* not {wrong}"):
                optax_package.mnemosyne(**{name: wrong})


def test_parameters_of_float64_keep_the_resolution_of_float64(optax_package: ModuleType) -> None:
    """An update is the step, and not the difference of parameters rounded to float32, which is a multiple of 6e-5."""
    with jax.enable_x64(True):
        params = 1000 + jax.random.normal(jax.random.key(0), (200,), jnp.float64)
        transformation = optax_package.mnemosyne(lr=jnp.float32(1e-8))
        updates, _ = transformation.update(jnp.ones_like(params), transformation.init(params), params)
        assert updates.dtype == jnp.float64
        assert ((jnp.abs(updates) > 0) & (jnp.abs(updates) < 6e-6)).all()
        moved: Any = optax.apply_updates(params, updates)
        np.testing.assert_allclose(moved - params, updates, atol=2e-13)
