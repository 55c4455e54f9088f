"""What users of other optimizers write, and parameters of float64."""

import warnings
from collections.abc import Callable
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


def test_step_sizes_are_what_directions_are_multiplied_with(package_of: Callable[[str], ModuleType]) -> None:
    """Under a constant gradient, directions stay."""
    random = np.random.default_rng(0)
    shapes = {"empty": (0, 3), "mlp.up_proj.weight": (16, 16), "norm.weight": (50,), "wte.weight": (20, 16)}
    params: Any = {name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    grads: Any = {name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    names = [name for name in shapes if name != "empty"]
    transformation = package_of("prior").mnemosyne(lr=lambda step: 0.5 * 2.0**step, total_steps=30)
    update = jax.jit(transformation.update)
    state: Any = transformation.init(params)
    assert not state.step_sizes.any() and state.step_sizes.shape == (3,)
    ratios = []
    for _ in range(4):
        updates, state = update(grads, state, params)
        moved = [float(jnp.sqrt(jnp.mean(jnp.square(updates[name])))) for name in names]
        ratios.append([move / float(size) for move, size in zip(moved, state.step_sizes, strict=True)])
        params = optax.apply_updates(params, updates)
    for later in ratios[1:]:
        assert later == pytest.approx(ratios[0], rel=1e-3)
    assert ratios[0][0] == pytest.approx(1, rel=0.1) and all(1 <= ratio < 2 for ratio in ratios[0][1:])
    _, refused = update({**grads, "norm.weight": jnp.full(50, jnp.nan)}, state, params)
    np.testing.assert_array_equal(refused.step_sizes, state.step_sizes)


def test_a_cell_that_does_not_say_its_steps_has_none_in_its_state(package_of: Callable[[str], ModuleType]) -> None:
    state = package_of("adam").mnemosyne().init({"w": jnp.ones(4)})
    assert state.step_sizes.shape == (0,)
