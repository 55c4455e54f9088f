"""The meta-objective: a mean log-loss of inner trainings."""

import jax.numpy as jnp
from jaxtyping import Array, Float

LOSS_FLOOR = 1e-3
"""Added to a loss, relative to the initial one, before its logarithm is taken: a solved task stops counting."""
DIVERGED = 10.0
"""A loss above this many times the initial one, or one that is not finite, ends a task."""


def meta_objective(losses: Float[Array, "steps two"], initial: Float[Array, ""]) -> Float[Array, ""]:
    """Mean log-loss relative to the initial loss, over steps and over batches of both splits, `train` and `meta`.

    Training batches alone would reward a cell that learns them by heart. A diverged step counts as the worst loss that
    still counts.
    """
    relative = losses / initial
    clipped = jnp.where(jnp.isfinite(relative), jnp.clip(relative, 0, DIVERGED), DIVERGED)
    return jnp.mean(jnp.log(clipped + LOSS_FLOOR))
