"""The state of a run."""

from typing import Any, NamedTuple

import optax
from jaxtyping import Array, Float, Int

from .inner_loop import Weights


class TrainerState(NamedTuple):
    """Everything that the next meta-step depends on."""

    weights: Weights
    """The weights that are meta-trained."""
    average: Weights
    """Their running average, which is validated and frozen."""
    best: Weights
    """The average with the lowest validation score so far."""
    best_score: Float[Array, ""]
    optimizer: optax.OptState
    carries: tuple[Any, ...]
    """What the estimator carries, per family."""
    meta_step: Int[Array, ""]
    resets: Int[Array, ""]
    """How many tasks ended because they diverged."""
    skipped: Int[Array, ""]
    """How many meta-steps changed no weight, because their meta-gradient was not finite."""
    skipped_in_a_row: Int[Array, ""]
