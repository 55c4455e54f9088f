"""A solution of an equation has no residual."""

import jax
import jax.numpy as jnp
import numpy as np

from mnemo_compile.meta.tasks._physics import Physics, PhysicsConfig, residual_of


def test_the_source_of_helmholtz_belongs_to_its_solution() -> None:
    family = Physics(PhysicsConfig(kind="physics", equation="helmholtz", batch=32))
    periods = family.draw(jax.random.key(0))
    batch = family.batch(periods, jax.random.key(1), "train")
    points, source = batch.inputs[:, :2], batch.inputs[:, 2:]

    def solution(points: jax.Array) -> jax.Array:
        return jnp.prod(jnp.sin(periods * points), axis=1, keepdims=True)

    np.testing.assert_allclose(residual_of("helmholtz", solution, points), source, rtol=1e-3, atol=1e-3)
    border = np.asarray(batch.targets)
    np.testing.assert_allclose(np.abs(border[:, :2]).max(axis=1), 1)
    np.testing.assert_allclose(solution(batch.targets[:, :2]), border[:, 2:], atol=1e-5)


def test_the_residual_of_burgers_is_its_formula() -> None:
    points = jax.random.uniform(jax.random.key(0), (16, 2))
    residual = residual_of("burgers", lambda p: jnp.sin(p[:, :1]) * jnp.exp(p[:, 1:]), points)
    x, t = np.asarray(points, np.float64).T
    u, slope = np.sin(x) * np.exp(t), np.cos(x) * np.exp(t)
    np.testing.assert_allclose(residual[:, 0], u + u * slope + 0.01 / np.pi * u, rtol=1e-4, atol=1e-5)


def test_burgers_border_is_the_start_and_both_ends() -> None:
    family = Physics(PhysicsConfig(kind="physics", equation="burgers", batch=64))
    batch = family.batch(family.draw(jax.random.key(0)), jax.random.key(1), "train")
    place, time, value = np.asarray(batch.targets).T
    is_end = np.abs(place) == 1
    assert is_end.sum() == 16 and set(place[is_end]) == {-1.0, 1.0} and not value[is_end].any()
    assert not time[~is_end].any() and value[~is_end].any()
    assert (np.asarray(batch.inputs)[:, 1] >= 0).all()
