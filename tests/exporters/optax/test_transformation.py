"""The optax export behaves as a gradient transformation does, on any tree."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

TREES = st.sampled_from(
    [
        {"a": (7,), "b": [(), (3, 5)]},
        {"w": (64, 70), "bias": (70,), "none": (0,)},
        [(4099,)],
        {"a": (1,), "b": (101,), "c": {"d": (2, 3, 4)}},
    ]
)


def arrays(tree: Any, seed: int) -> Any:
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32), tree, is_leaf=lambda x: isinstance(x, tuple)
    )


def run(transformation: Any, params: Any, shapes: Any, steps: int = 3) -> tuple[Any, Any]:
    state = transformation.init(params)
    update = jax.jit(transformation.update)
    for step in range(steps):
        updates, state = update(arrays(shapes, 100 + step), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.slow
@settings(max_examples=2, deadline=None)
@given(shapes=TREES, block_size=st.sampled_from([64, 4096]))
def test_every_block_size_gives_the_same_update(optax_package: ModuleType, shapes: Any, block_size: int) -> None:
    params = arrays(shapes, 0)
    whole, _ = run(optax_package.mnemosyne(), params, shapes)
    split, _ = run(optax_package.mnemosyne(block_size=block_size), params, shapes)
    for left, right in zip(jax.tree.leaves(whole), jax.tree.leaves(split), strict=True):
        assert np.linalg.norm(left - right) <= 1e-5 * np.linalg.norm(left) + 1e-12


def test_a_gradient_that_is_not_finite_gives_zero_updates(optax_package: ModuleType) -> None:
    shapes = {"a": (40,), "b": (64, 70)}
    transformation = optax_package.mnemosyne(weight_decay=0.1)
    params, state = run(transformation, arrays(shapes, 0), shapes)
    grads = arrays(shapes, 9)
    grads["a"] = grads["a"].at[3].set(jnp.nan)
    updates, after = jax.jit(transformation.update)(grads, state, params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(updates))
    assert int(after.skipped) == 1
    for name in ("step", "memory", "recall"):
        for left, right in zip(
            jax.tree.leaves(getattr(after, name)), jax.tree.leaves(getattr(state, name)), strict=True
        ):
            np.testing.assert_array_equal(left, right)


def test_bfloat16_parameters_have_float32_state(optax_package: ModuleType) -> None:
    params = {"w": jnp.ones((64, 3), jnp.bfloat16), "none": jnp.zeros((0,), jnp.bfloat16)}
    transformation = optax_package.mnemosyne()
    updates, state = transformation.update(jax.tree.map(jnp.ones_like, params), transformation.init(params), params)
    assert updates["w"].dtype == jnp.bfloat16
    assert state.memory["fast"]["w"].dtype == jnp.float32
    assert np.all(np.isfinite(np.asarray(updates["w"], np.float32)))


def test_the_rate_may_be_a_schedule(optax_package: ModuleType) -> None:
    shapes = {"a": (40,)}
    params = arrays(shapes, 0)
    once, _ = run(optax_package.mnemosyne(), params, shapes, steps=1)
    scheduled, _ = run(optax_package.mnemosyne(lr=lambda step: jnp.where(step == 0, 1.0, 0.0)), params, shapes, steps=3)
    np.testing.assert_array_equal(scheduled["a"], once["a"])


def test_it_composes(optax_package: ModuleType) -> None:
    shapes = {"a": (40,), "b": (5, 6)}
    params, _ = run(optax.chain(optax.clip_by_global_norm(1.0), optax_package.mnemosyne()), arrays(shapes, 0), shapes)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))


def test_without_parameters_it_says_what_it_needs(optax_package: ModuleType) -> None:
    transformation = optax_package.mnemosyne()
    params = {"a": jnp.ones(3)}
    with pytest.raises(ValueError, match="needs the parameters"):
        transformation.update(params, transformation.init(params))


@pytest.mark.parametrize(
    "options", [{"lr": -1.0}, {"weight_decay": float("nan")}, {"total_steps": 0}, {"block_size": 0}]
)
def test_options_that_make_no_sense_are_refused(optax_package: ModuleType, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be|counts"):
        optax_package.mnemosyne(**options)
