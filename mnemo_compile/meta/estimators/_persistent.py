"""Persistent evolution strategies."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..inner_loop import AbstractInnerLoop, State, Weights
from . import _pairs
from ._interface import AbstractEstimator, draw, Estimate, select


class Particles(NamedTuple):
    """Pairs of inner trainings that were equal when they were drawn."""

    plus: State
    minus: State
    perturbation: Weights
    """Σ ε over the truncations since then, with a leading axis of pairs."""


class PersistentEvolution(AbstractEstimator):
    """Persistent evolution strategies (Vicol et al. 2021, arXiv 2112.13835, algorithm 1), antithetic.

    A pair of trainings goes on under weights θ + ε and θ − ε, with a new ε each truncation. The difference of their
    losses is credited to the sum of all ε since they were drawn. So the estimate is of the whole training and not of a
    truncation: it is unbiased for the loss smoothed by N(0, σ²).
    """

    tasks: int = eqx.field(static=True, default=8)
    """Twice the number of pairs."""
    deviation: float = eqx.field(static=True, default=0.01)
    """σ."""

    def init(self, loop: AbstractInnerLoop, weights: Weights, key: PRNGKeyArray) -> Particles:
        pairs = self.tasks // 2
        states = draw(loop, weights, key, pairs)
        zeros = jax.tree.map(lambda w: jnp.zeros((pairs, *w.shape), w.dtype), weights)
        return Particles(states, states, zeros)

    def step(
        self, loop: AbstractInnerLoop, weights: Weights, carry: Particles, key: PRNGKeyArray
    ) -> tuple[Estimate, Particles]:
        keys = jax.random.split(key)
        pairs = self.tasks // 2
        noise = _pairs.perturbations(weights, keys[0], pairs, self.deviation)
        plus, minus, differences, means = _pairs.unroll(loop, weights, noise, carry.plus, carry.minus)
        total = jax.tree.map(jnp.add, carry.perturbation, noise)
        gradient = _pairs.gradient(total, differences, self.deviation)
        done, diverged = _pairs.ended(loop, plus, minus)
        ended = done | diverged
        fresh = draw(loop, weights, keys[1], pairs)
        zeros = jax.tree.map(jnp.zeros_like, total)
        following = Particles(select(ended, fresh, plus), select(ended, fresh, minus), select(ended, zeros, total))
        return Estimate(gradient, jnp.mean(means), jnp.sum(diverged)), following
