"""Truncated backpropagation through the inner loop."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ..inner_loop import AbstractInnerLoop, State, Weights
from ._interface import AbstractEstimator, draw, Estimate, select


class TruncatedBackpropagation(AbstractEstimator):
    """The derivative through one truncation, as if the weights had no effect on what came before it.

    Its variance is small. It is biased against what pays off only after the truncation (Wu et al. 2018, arXiv
    1803.02021).
    """

    tasks: int = eqx.field(static=True, default=8)

    def init(self, loop: AbstractInnerLoop, weights: Weights, key: PRNGKeyArray) -> Any:
        return draw(loop, weights, key, self.tasks)

    def step(self, loop: AbstractInnerLoop, weights: Weights, carry: Any, key: PRNGKeyArray) -> tuple[Estimate, Any]:
        def objective(weights: Weights) -> tuple[Array, State]:
            following, losses = jax.vmap(lambda state: loop.unroll(weights, state))(carry)
            return jnp.mean(losses), following

        (value, following), gradient = jax.value_and_grad(objective, has_aux=True)(weights)
        done, diverged = jax.vmap(loop.ended)(following)
        fresh = draw(loop, weights, key, self.tasks)
        return Estimate(gradient, value, jnp.sum(diverged)), select(done | diverged, fresh, following)
