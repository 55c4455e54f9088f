"""The prior: the step sizes before meta-training.

Its direction is in `_direction.py`.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .._records import Chunks, Rows, Tensors
from ._config import PriorConfig
from ._numbers import TINY, valid_count
from ._types import NamedRows, PerTensor

WARM_UP_STEPS = 20.0
"""Steps over which the step grows if the horizon is unknown."""
LAST_STEP = 0.01
"""Fraction of the step that remains at the horizon and after it."""
DIRECTION_FLOOR = 0.2
"""Lower bound of the root mean square that the direction is divided by. Where a gradient touches few coordinates,
or none in the sample, the step is at most 1 / DIRECTION_FLOOR times Adam's."""
USUAL_DIRECTION = 0.5
"""A direction with this root mean square takes the same step at any `signal_to_noise`. The root mean square is 1 where
all gradients agree. It is about 0.25 where they are noise: an average with a discount of 0.9 leaves √0.053."""


class Timing(NamedTuple):
    """The position of a step in the training."""

    schedule: PerTensor
    """The factor of warm-up and annealing in this step."""
    progress: PerTensor
    """Fraction of the horizon that is over, 0 if the horizon is unknown."""


class Sizes(NamedTuple):
    """The size of a tensor's entries."""

    rms: PerTensor
    """Root mean square of the sampled parameters."""
    floor: PerTensor
    """Lower bound of the root mean square that the step of a matrix is relative to."""


class Prior(eqx.Module):
    """A hand-designed optimizer: the sizes of its steps, their schedule, and how they scale.

    A step is relative to the root mean square of the tensor's entries. Steps shrink over a long horizon, where noise
    adds up over the steps; in a deep network, where the changes of all tensors add up; and in a wide matrix, where the
    changes of its inputs add up (Yang et al. 2022, arXiv 2203.03466: Adam's step shrinks by the width, which is the
    root of the width relative to the matrix).
    """

    config: PriorConfig = eqx.field(static=True)
    anneal: Callable[[PerTensor], PerTensor] = eqx.field(static=True)
    """Fraction of the step that remains, from the progress."""
    reductions: tuple[tuple[int, Callable[[Tensors], PerTensor]], ...] = eqx.field(static=True)
    """Reference numbers, each with the function that gives the number of a tensor."""

    def __init__(self, config: PriorConfig):
        self.config = config
        self.anneal = {"cosine": cosine, "linear": linear}[config.annealing]
        numbers = {
            horizon: config.reference_horizon,
            matrices: config.reference_matrices,
            width: config.reference_width,
        }
        self.reductions = tuple((reference, number) for number, reference in numbers.items() if reference)

    @property
    def has_share(self) -> bool:
        """Whether a tensor's step depends on the other tensors."""
        return self.config.reference_matrices > 0

    def encode(self, chunks: Chunks) -> NamedRows:
        """Terms of the sums that give the size of the tensor's entries."""
        square = jnp.sum(chunks.param * chunks.param, axis=1)
        return {"param_square": square, "count": valid_count(chunks.valid, chunks.grad.dtype)}

    def share(self, tensors: Tensors) -> NamedRows:
        """Terms of the number of matrices in the network."""
        return {"matrices": tensors.shape["matrix"]} if self.has_share else {}

    def sizes(self, tensors: Tensors) -> Sizes:
        """The size of the tensor's entries."""
        rms = jnp.sqrt(tensors.summary["param_square"] / tensors.summary["count"] + TINY)
        # 0.3 / √fan-in, with the fan-in of a square matrix of as many coordinates: the same for any transpose.
        return Sizes(rms, 0.3 * jnp.exp(-0.25 * jnp.log(tensors.shape["coordinates"])))

    def timing(self, clock: Rows) -> Timing:
        """Warm-up and annealing."""
        step, total = clock["step"], clock["total"]
        length = jnp.maximum(total, 1)
        progress = jnp.minimum(step / length, 1)
        warm_up = jnp.where(total > 0, jnp.maximum(self.config.warm_up * length, 1), WARM_UP_STEPS)
        annealed = LAST_STEP + (1 - LAST_STEP) * self.anneal(progress)
        schedule = jnp.minimum((step + 1) / warm_up, 1) * jnp.where(total > 0, annealed, 1)
        return Timing(schedule, progress * (total > 0).astype(step.dtype))

    def step(self, tensors: Tensors) -> PerTensor:
        """The size of this step, if the root mean square of the direction is `USUAL_DIRECTION`."""
        rms, floor = self.sizes(tensors)
        step = jnp.where(
            tensors.shape["matrix"] > 0,
            self.config.matrix_step * jnp.maximum(rms, floor),
            self.config.vector_step * jnp.maximum(rms, 1),
        )
        step = step * self.timing(tensors.clock).schedule
        factors = [root_ratio(reference, number(tensors)) for reference, number in self.reductions]
        return step * functools.reduce(operator.mul, factors) if factors else step

    def scale(self, step: PerTensor, direction: Rows) -> PerTensor:
        """The factor of a direction with these sums over the sample."""
        rms = jnp.maximum(jnp.sqrt(direction["square"] / direction["count"] + TINY), DIRECTION_FLOOR)
        if self.config.signal_to_noise:
            step = step * jnp.exp(self.config.signal_to_noise * jnp.log(rms * (1 / USUAL_DIRECTION)))
        return step / rms


def cosine(progress: PerTensor) -> PerTensor:
    """1 at the start, 0 at the horizon, flat at both ends."""
    return 0.5 * (1 + jnp.cos(jnp.pi * progress))


def linear(progress: PerTensor) -> PerTensor:
    """1 at the start, 0 at the horizon."""
    return 1 - progress


def horizon(tensors: Tensors) -> PerTensor:
    """Steps of the training, 0 if unknown."""
    return tensors.clock["total"]


def matrices(tensors: Tensors) -> PerTensor:
    """Matrices of the network."""
    return tensors.network["matrices"]


def width(tensors: Tensors) -> PerTensor:
    """Width of a square matrix with as many coordinates, which is the same for any transpose; 1 for a vector."""
    return jnp.where(tensors.shape["matrix"] > 0, jnp.sqrt(tensors.shape["coordinates"]), 1)


def root_ratio(reference: int, number: PerTensor) -> PerTensor:
    """√(reference / number), at most 1."""
    return jnp.minimum(jax.lax.rsqrt(jnp.maximum(number, 1) * (1 / reference)), 1)
