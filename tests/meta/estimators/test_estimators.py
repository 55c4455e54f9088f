"""Each estimator of the meta-gradient against the derivative that a quadratic has in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.meta.estimators import (
    AbstractEstimator,
    EvolutionStrategies,
    PersistentEvolution,
    TruncatedBackpropagation,
)
from mnemo_compile.meta.inner_loop import AbstractInnerLoop

RATE, STEPS, TRUNCATION = 0.3, 12, 3


class Descent(AbstractInnerLoop):
    """x ← x − θ x from 1, with loss x² before each step; the weights are θ and one that does nothing."""

    def draw(self, weights: Any, key: Any) -> Any:
        return {"x": jnp.ones(()), "step": jnp.zeros((), jnp.int32)}

    def unroll(self, weights: Any, state: Any) -> Any:
        losses, x = [], state["x"]
        for _ in range(TRUNCATION):
            losses.append(x * x)
            x = x - weights["rate"] * x
        return {"x": x, "step": state["step"] + TRUNCATION}, jnp.mean(jnp.stack(losses))

    def ended(self, state: Any) -> Any:
        return state["step"] >= STEPS, ~(jnp.abs(state["x"]) < 10)


def derivative(first: int, last: int, start: float = 1.0) -> float:
    """Of the mean of x_t² = start² (1 − θ)^(2 (t − first)) over these steps, where x begins at `start`."""
    powers = np.arange(last - first)
    return float(np.mean(-2 * powers * start**2 * (1 - RATE) ** (2 * powers - 1.0)))


WHOLE = derivative(0, STEPS)
WEIGHTS = {"rate": jnp.array(RATE), "idle": jnp.zeros(2)}


def estimates(estimator: AbstractEstimator, meta_steps: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """What each meta-step estimates for the rate and for the idle weights, while the weights stay as they are."""
    loop = Descent()
    step = jax.jit(lambda carry, key: estimator.step(loop, WEIGHTS, carry, key))
    carry = estimator.init(loop, WEIGHTS, jax.random.key(0))
    rates, idle = [], []
    for number in range(meta_steps):
        estimate, carry = step(carry, jax.random.fold_in(jax.random.key(1), number))
        rates.append(float(estimate.gradient["rate"]))
        idle.append(np.asarray(estimate.gradient["idle"]))
        assert int(estimate.diverged) == 0
    return np.array(rates), np.array(idle), carry


def test_truncated_backpropagation_is_the_derivative_within_each_truncation() -> None:
    rates, idle, _ = estimates(TruncatedBackpropagation(3), 2 * STEPS // TRUNCATION)
    starts = [(1 - RATE) ** first for first in range(0, STEPS, TRUNCATION)]
    expected = [derivative(0, TRUNCATION, start) for start in starts]
    np.testing.assert_allclose(rates, 2 * expected, rtol=1e-5)
    assert not idle.any()
    assert abs(np.mean(expected) / WHOLE) < 0.6, "a truncation misses a good part of what the rate does"


class DescentOfAnyLength(Descent):
    """Trainings end after any number of truncations, the longest after `STEPS`; what came after would outweigh all."""

    def draw(self, weights: Any, key: Any) -> Any:
        truncations = jax.random.randint(key, (), 1, STEPS // TRUNCATION + 1)
        return super().draw(weights, key) | {"horizon": TRUNCATION * truncations}

    def unroll(self, weights: Any, state: Any) -> Any:
        following, loss = super().unroll(weights, state)
        late = 1e6 * weights["rate"] * (state["step"] >= state["horizon"])
        return following | {"horizon": state["horizon"]}, loss + late

    def ended(self, state: Any) -> Any:
        return state["step"] >= state["horizon"], super().ended(state)[1]


def test_evolution_over_whole_trainings_ends_with_each() -> None:
    estimator = EvolutionStrategies(STEPS // TRUNCATION, 8192, 0.003)
    loop = DescentOfAnyLength()
    step = jax.jit(lambda key: estimator.step(loop, WEIGHTS, None, key)[0])
    drawn = [step(jax.random.key(number)) for number in range(24)]
    rates = np.array([float(estimate.gradient["rate"]) for estimate in drawn])
    ends = range(TRUNCATION, STEPS + 1, TRUNCATION)
    expected = np.mean([derivative(0, end) for end in ends])
    error = rates.std(ddof=1) / len(rates) ** 0.5
    assert error < 0.1 * abs(expected)
    assert abs(rates.mean() - expected) < 4 * error + 0.01 * abs(expected)
    mean = np.mean([np.mean((1 - RATE) ** (2.0 * np.arange(end))) for end in ends])
    assert np.mean([float(estimate.objective) for estimate in drawn]) == pytest.approx(mean, rel=0.02)


@pytest.mark.parametrize(
    "estimator", [PersistentEvolution(4096, 0.003), EvolutionStrategies(STEPS // TRUNCATION, 4096, 0.003)]
)
def test_evolution_sees_the_whole_training(estimator: AbstractEstimator) -> None:
    meta_steps = 24
    rates, idle, _ = estimates(estimator, meta_steps)
    # One whole training takes some meta-steps or is one; the mean over it is the derivative.
    trainings = rates.reshape(-1, STEPS // TRUNCATION).mean(axis=1)
    error = trainings.std(ddof=1) / len(trainings) ** 0.5
    assert abs(trainings.mean() - WHOLE) < 4 * error + 0.01 * abs(WHOLE)
    assert error < 0.1 * abs(WHOLE)
    assert np.abs(idle.mean(axis=0)).max() < 5 * idle.std() / len(idle) ** 0.5


def test_a_pair_that_ends_begins_again_without_its_past() -> None:
    estimator = PersistentEvolution(6, 0.01)
    _, _, carry = estimates(estimator, STEPS // TRUNCATION)
    assert not np.asarray(carry.perturbation["rate"]).any()
    assert not np.asarray(carry.plus["step"]).any()
    _, _, carry = estimates(estimator, STEPS // TRUNCATION + 1)
    assert np.asarray(carry.perturbation["rate"]).all()
    np.testing.assert_array_equal(carry.plus["step"], TRUNCATION)
    assert np.all(np.asarray(carry.plus["x"]) != np.asarray(carry.minus["x"]))


def test_a_training_that_diverges_is_replaced_and_counted() -> None:
    weights = {"rate": jnp.array(40.0), "idle": jnp.zeros(2)}
    for estimator in (TruncatedBackpropagation(3), PersistentEvolution(6, 0.01)):
        carry = estimator.init(Descent(), weights, jax.random.key(0))
        estimate, carry = estimator.step(Descent(), weights, carry, jax.random.key(1))
        assert int(estimate.diverged) == 3
        states: Any = carry.plus if isinstance(estimator, PersistentEvolution) else carry
        np.testing.assert_array_equal(states["x"], 1)
        np.testing.assert_array_equal(states["step"], 0)
