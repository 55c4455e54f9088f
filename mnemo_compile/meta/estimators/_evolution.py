"""Evolution strategies over whole inner trainings."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ..inner_loop import AbstractInnerLoop, State, Weights
from . import _pairs
from ._interface import AbstractEstimator, draw, Estimate, select


class EvolutionStrategies(AbstractEstimator):
    """Antithetic evolution strategies over whole inner trainings, of the mean loss over their truncations.

    A pair that ends before the others stops counting.
    """

    truncations: int = eqx.field(static=True)
    """How many the longest training has."""
    tasks: int = eqx.field(static=True, default=8)
    """Twice the number of pairs."""
    deviation: float = eqx.field(static=True, default=0.01)
    """σ."""

    def init(self, loop: AbstractInnerLoop, weights: Weights, key: PRNGKeyArray) -> None:
        return None

    def step(self, loop: AbstractInnerLoop, weights: Weights, carry: None, key: PRNGKeyArray) -> tuple[Estimate, None]:
        keys = jax.random.split(key)
        pairs = self.tasks // 2
        noise = _pairs.perturbations(weights, keys[0], pairs, self.deviation)
        start = draw(loop, weights, keys[1], pairs)

        def advance(states: tuple[State, State], _: None) -> tuple[tuple[State, State], tuple[Array, Array, Array]]:
            done = _pairs.ended(loop, *states).done
            plus, minus, differences, means = _pairs.unroll(loop, weights, noise, *states)
            following = select(done, states[0], plus), select(done, states[1], minus)

            def counted(values: Array) -> Array:
                return jnp.where(done, 0.0, values)

            return following, (counted(differences), counted(means), counted(jnp.ones_like(means)))

        (plus, minus), sums = jax.lax.scan(advance, (start, start), length=self.truncations)
        differences, means, counts = (jnp.sum(each, axis=0) for each in sums)
        gradient = _pairs.gradient(noise, differences / counts, self.deviation)
        diverged = _pairs.ended(loop, plus, minus).diverged
        return Estimate(gradient, jnp.mean(means / counts), jnp.sum(diverged)), None
