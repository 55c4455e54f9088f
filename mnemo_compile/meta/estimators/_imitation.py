"""Imitation: the cell's step is drawn towards that of a tuned optimizer on the same gradients.

It is for a first run. The derivative of a distance is cheap, and the cell soon does what its teacher does, but not
more. To get further, another run goes on from there with an estimator that looks at the loss.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..inner_loop import AbstractInnerLoop, ImitationState, State, Weights
from ._interface import AbstractEstimator, draw, Estimate, select

RATES = tuple(10 ** (exponent / 2) for exponent in range(-8, 1))
"""Half decades from 1e-4 to 1; the teacher's learning rate is one of them."""
TUNING_TASKS = 4
"""Largest number of tasks that each rate is tried on."""


class Imitation(AbstractEstimator):
    """Truncated backpropagation of the distance from a teacher. Its inner loop is an `ImitationLoop`.

    The teacher's rate is tuned for the family when the run begins, to the lowest mean log-loss over the first
    truncations of a few tasks. Every task carries it.
    """

    tasks: int = eqx.field(static=True, default=8)
    truncations: int = eqx.field(static=True, default=10)
    """Length of the trainings that tune the teacher's rate."""

    def init(self, loop: AbstractInnerLoop, weights: Weights, key: PRNGKeyArray) -> ImitationState:
        keys = jax.random.split(key)
        states = draw(loop, weights, keys[0], self.tasks)
        rate = self._tune(loop, weights, keys[1])
        return dataclasses.replace(states, rate=jnp.broadcast_to(rate, states.rate.shape))

    def step(self, loop: AbstractInnerLoop, weights: Weights, carry: Any, key: PRNGKeyArray) -> tuple[Estimate, Any]:
        def distance(weights: Weights, state: State) -> tuple[Array, State]:
            following, value = loop.unroll(weights, state)
            return value, following

        def of_one(state: State) -> tuple[Array, Weights, State]:
            (value, following), gradient = jax.value_and_grad(distance, has_aux=True)(weights, state)
            # Where a tensor has never had a gradient, a cell may have a step and no derivative. If the task is well
            # otherwise, that weight learns nothing from it.
            is_lost = ~jnp.isfinite(value)
            return value, jax.tree.map(lambda g: jnp.where(is_lost | jnp.isfinite(g), g, 0.0), gradient), following

        values, gradients, following = jax.vmap(of_one)(carry)
        done, diverged = jax.vmap(loop.ended)(following)
        fresh = draw(loop, weights, key, self.tasks)
        following = select(done | diverged, dataclasses.replace(fresh, rate=carry.rate), following)
        gradient = jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)
        return Estimate(gradient, jnp.mean(values), jnp.sum(diverged)), following

    def _tune(self, loop: AbstractInnerLoop, weights: Weights, key: PRNGKeyArray) -> Float[Array, ""]:
        drawn = draw(loop, weights, key, self.tasks)
        few = jax.tree.map(lambda leaf: leaf[:TUNING_TASKS], drawn)

        def objective(rate: Array, state: ImitationState) -> Array:
            alone = dataclasses.replace(state, rate=rate, teacher_alone=True)
            _, objectives = jax.lax.scan(lambda held, _: loop.unroll(weights, held), alone, length=self.truncations)
            return jnp.mean(objectives)

        rates = jnp.asarray(RATES)
        objectives = jax.vmap(jax.vmap(objective, in_axes=(None, 0)), in_axes=(0, None))(rates, few)
        return rates[jnp.argmin(jnp.mean(objectives, axis=1))]
