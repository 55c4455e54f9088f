"""Validation: how well weights train tasks that meta-training never draws, and a score to choose weights by."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, PRNGKeyArray

from ._sharding import ShardedLoop
from .inner_loop import InnerLoop, InnerState, meta_objective, Weights

VALIDATION_BATCHES = 8
"""How many batches a validation loss is the mean of."""


class Validation(NamedTuple):
    """The figures of one validation family: means over its tasks."""

    objective: Float[Array, ""] | float
    """The meta-objective over the whole horizon."""
    training_loss: Float[Array, ""] | float
    """Training loss over the last tenth of the horizon."""
    validation_loss: Float[Array, ""] | float
    """Loss on the validation split, at the horizon."""


def validation_score(figures: Sequence[Validation]) -> Float[Array, ""]:
    """The score of weights, of which the lowest is best: how fast the cell trains, and where it ends.

    Per family it is the meta-objective, which is a mean log-loss, plus half the logarithms of the final training loss
    and of the validation loss. The score is the mean over families.
    """
    return jnp.mean(jnp.stack([f.objective + jnp.log(f.training_loss * f.validation_loss) / 2 for f in figures]))


def validate(
    loop: InnerLoop, weights: Weights, key: PRNGKeyArray, tasks: int, steps: int, sharding: NamedSharding
) -> Validation:
    """Trains tasks of a family, which lie on the devices as `sharding` says."""

    def one(key: PRNGKeyArray, state: InnerState) -> tuple[Array, Array, Array]:
        state, losses = loop.advance(weights, state, steps)
        network, family = loop.network(state), loop.family
        batches = [
            family.batch(state.instance, jax.random.fold_in(key, number), "validation")
            for number in range(VALIDATION_BATCHES)
        ]
        validation_loss = jnp.mean(jnp.stack([family.loss(network, batch) for batch in batches]))
        return losses, validation_loss, meta_objective(losses, state.initial_loss)

    keys = jax.random.split(key, tasks)
    states = jax.vmap(lambda key: ShardedLoop(loop, sharding).draw(weights, key))(keys)
    losses, validation_losses, objectives = jax.vmap(one)(keys, states)
    last_tenth = losses[:, -max(steps // 10, 1) :, 0]
    return Validation(jnp.mean(objectives), jnp.mean(last_tenth), jnp.mean(validation_losses))
