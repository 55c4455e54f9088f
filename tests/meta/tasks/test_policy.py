"""The gradient of a policy's loss is that of the expected cost."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.meta.tasks._environments import EnvironmentName, ENVIRONMENTS
from tests.meta.tasks.families import family_of, start


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_likelihood_is_that_of_the_actions(environment: EnvironmentName) -> None:
    rules = ENVIRONMENTS[environment]()
    outputs = jnp.broadcast_to(jnp.linspace(-0.5, 0.7, rules.outputs), (20000, rules.outputs))
    uniform = jax.random.uniform(jax.random.key(0), outputs.shape)
    action = rules.act(outputs, uniform)
    # The score has mean zero under the actions' own distribution.
    score = jax.grad(lambda o: jnp.mean(rules.log_likelihood(o, action)))(outputs) * len(outputs)
    assert np.abs(np.asarray(score.mean(axis=0))).max() < 0.05 * max(float(np.abs(score).max()), 1)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_costs_stay_between_0_and_1_and_a_step_against_the_gradient_lowers_them(environment: EnvironmentName) -> None:
    # A catch costs in its last step alone, and half of its cost is luck.
    sizes = {"horizon": 9, "batch": 4096} if environment == "catch" else {"horizon": 20, "batch": 1024}
    family = family_of({"kind": "policy", "environment": environment, "widths": [8], **sizes})
    params, instance = start(family, jax.random.key(0)), family.draw(jax.random.key(1))
    batch = family.batch(instance, jax.random.key(2), "train")
    before, gradient = jax.value_and_grad(family.loss)(params, batch)
    assert 0 < float(before) < 1
    size = float(jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradient)))
    # Cart and pole stand for the first steps whatever one does, so that the step has to be long.
    after = family.loss([p - 2 * g / size for p, g in zip(params, gradient, strict=True)], batch)
    assert float(after) < float(before)


def test_a_paddle_that_follows_the_ball_catches_it_and_one_that_stays_does_not() -> None:
    rules = ENVIRONMENTS["catch"]()
    first = rules.start(jnp.array([1.0]), jax.random.key(0), 64)

    def costs(action: Callable[[jax.Array], jax.Array]) -> np.ndarray:
        state, paid = first, []
        for _ in range(12):
            board = rules.observe(state).reshape(-1, 10, 5)
            assert float(board.sum(axis=(1, 2)).min()) == 2.0
            state, cost = rules.step(state, action(state))
            paid.append(cost)
        return np.asarray(jnp.stack(paid))

    follows = costs(lambda state: jnp.sign(state[:, 0] - state[:, 2]) + 1)
    np.testing.assert_allclose(follows.sum(axis=0), 0.01 * np.abs(np.asarray(first[:, 0] - 1)), rtol=1e-5)
    stays = costs(lambda state: jnp.ones(64))
    np.testing.assert_array_equal(stays[:8], 0.0)
    np.testing.assert_array_equal(stays[8:], np.broadcast_to(np.asarray(first[:, 0] != 1), (4, 64)))


def test_a_pole_that_has_fallen_stays_so() -> None:
    rules = ENVIRONMENTS["cart-pole"]()
    state = rules.start(rules.draw(jax.random.key(0)), jax.random.key(1), 4)
    for _ in range(100):
        state, _ = rules.step(state, jnp.ones(4))
    np.testing.assert_array_equal(rules.step(state, jnp.ones(4))[1], 1.0)
    assert bool(jnp.isfinite(state).all())
