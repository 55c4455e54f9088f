"""The prior: the step sizes before meta-training.

Its direction is in `_direction.py`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...step import quotient, Role, ROLES, root, TILED
from .._records import has_role, Rows, Tensors
from ._config import PriorConfig
from ._numbers import TINY, total
from ._types import Grid, InitialState, NamedRows, PerTensor

WARM_UP_STEPS = 20.0
"""Steps over which the step grows if the horizon is unknown."""
SMOOTHING = 0.95
"""Discount of the gradient's norm in the mean that the guard compares with its peak."""
LEAST_RATIO = 1e-4
"""Lower bound of the gradient's norm over its peak."""
LEAST_REFERENCE = 0.02
"""A tensor whose first root mean square is below this fraction of the usual one counts as one that starts at zero."""
LEAST_GROWTH = 0.1
"""A small start shrinks steps to this fraction at the most."""
GAIN_SPREAD = 1e-4
"""A vector is a trained gain if its variance is more than this fraction of its squared mean, and at most a quarter.
The gains of a new network are all 1, and its biases are zero, or random around zero."""
LEAST_GAINS = 16
"""Entries of a trained gain, at least. A third of all pairs of random biases look like one, and 1 in 10⁵ of so many."""


class Timing(NamedTuple):
    """The position of a step in the training."""

    schedule: PerTensor
    """The factor of warm-up and annealing in this step."""
    progress: PerTensor
    """Fraction of the horizon that is over, 0 if the horizon is unknown."""


class Sizes(NamedTuple):
    """The size of a tensor's entries."""

    rms: PerTensor
    """Root mean square of the parameters."""
    usual: PerTensor
    """What it usually is in a new matrix of as many entries."""


class Guard(NamedTuple):
    """How large the tensor's gradient is beside its largest so far. Norms are smoothed over about twenty steps."""

    norm: PerTensor
    """Discounted sum of the root mean squares of the gradient."""
    weight: PerTensor
    """The discounted number of steps in the sum."""
    peak: PerTensor
    """The greatest mean so far."""

    @property
    def log_ratio(self) -> PerTensor:
        """Logarithm of the mean over the peak, 0 for a tensor that never had a gradient."""
        mean = self.norm / self.weight
        return jnp.log(jnp.maximum(quotient(mean + TINY, self.peak + TINY), LEAST_RATIO))


class Prior(eqx.Module):
    """A hand-designed optimizer: the sizes of its steps, their schedule, and how they scale. Its numbers are weights.

    Tiled matrices and heads move relative to the usual root mean square of their size. A matrix that starts far
    smaller, as on purpose before sines, moves less, and a head if so configured. One that starts larger, or has grown,
    takes no larger steps, which would make it grow further.
    """

    log_steps: Float[Array, " roles"]
    """Logarithm of each role's step."""
    log_pretrained: Float[Array, ""]
    """Logarithm of the factor of all steps in a pretrained network."""
    log_warm_up: Float[Array, ""]
    """Logarithm of the fraction of the horizon over which the step grows from zero."""
    log_last: Float[Array, ""]
    """Logarithm of the fraction of the step that remains at the horizon and after it."""
    guard_power: Float[Array, ""]
    """Power of the gradient's norm over its peak that steps shrink with."""
    start_powers: Float[Array, "2"]
    """Powers of a small first root mean square, and of one above the usual, that steps grow with."""
    log_small: Float[Array, ""]
    """Logarithm of the fraction of the usual root mean square below which the first one is small."""
    anneal: Callable[[PerTensor], PerTensor] = eqx.field(static=True)
    """Fraction of the step that remains, from the progress."""
    is_tiled: bool = eqx.field(static=True)
    small_roles: tuple[Role, ...] = eqx.field(static=True)
    """Roles whose steps a small start shrinks."""
    small_networks: float = eqx.field(static=True)
    """Factor of all steps in a network that starts small."""
    tile: int = eqx.field(static=True)
    wide: float = eqx.field(static=True)
    """Power of a tile's side over the shorter side of a matrix that steps shrink with."""

    def __init__(self, config: PriorConfig):
        self.log_steps = jnp.log(jnp.array([getattr(config.steps, role) for role in ROLES]))
        self.log_pretrained = jnp.array(math.log(config.pretrained))
        self.log_warm_up = jnp.array(math.log(config.warm_up))
        self.log_last = jnp.array(math.log(config.last_step))
        self.guard_power = jnp.array(config.guard)
        self.start_powers = jnp.array([config.small_start, config.large_start])
        self.log_small = jnp.array(math.log(config.small_from))
        self.anneal = {"cosine": cosine, "linear": linear}[config.annealing]
        self.is_tiled = config.tile > 0
        # A head often starts small so that the first outputs are, and not because it wants small steps.
        self.small_roles = (*TILED, "head") if config.small_heads else TILED
        self.small_networks = config.small_networks if self.is_tiled else 1.0
        self.tile, self.wide = config.tile, config.wide

    def initial_state(self) -> InitialState:
        """The tensor's state before the first step."""
        names = ("age", "first_rms", "norm", "norm_weight", "norm_peak", "pretrained")
        return {name: jnp.zeros(()) for name in names}

    def measure(self, param: Grid) -> NamedRows:
        """Moments of the parameters of each chunk."""
        return {"param_sum": jnp.sum(param, axis=1), "param_square": jnp.sum(param * param, axis=1)}

    def share(self, tensors: Tensors) -> NamedRows:
        """Terms of the number of trained gains in the network, and of its matrices that start small less the others."""
        state = tensors.state
        rows = {"trained": jnp.where(state["age"] > 0, state["pretrained"], _is_trained_gain(tensors))}
        if self.small_networks < 1:
            sign = jnp.where(self._log_start(tensors) < self.log_small + math.log(0.5), 1.0, -1.0)
            rows["small"] = sign * has_role(tensors.shape["role"], TILED)
        return rows

    def guard(self, tensors: Tensors) -> Guard:
        """The gradient's norm, with that of this step."""
        state = tensors.state
        now = root(tensors.moments["square"] / tensors.shape["coordinates"])
        norm, weight = SMOOTHING * state["norm"] + now, SMOOTHING * state["norm_weight"] + 1
        return Guard(norm, weight, jnp.maximum(state["norm_peak"], norm / weight))

    def sizes(self, tensors: Tensors) -> Sizes:
        """The size of the tensor's entries."""
        rms = jnp.sqrt(tensors.moments["param_square"] / tensors.shape["coordinates"] + TINY)
        # 0.3 / √fan-in, with the fan-in of a square matrix of as many coordinates: the same for any transpose.
        return Sizes(rms, 0.3 * jnp.exp(-0.25 * jnp.log(tensors.shape["area"])))

    def _first_rms(self, tensors: Tensors) -> PerTensor:
        return jnp.where(tensors.state["age"] <= 0, self.sizes(tensors).rms, tensors.state["first_rms"])

    def _log_start(self, tensors: Tensors) -> PerTensor:
        """Logarithm of the first root mean square over the usual one. A tensor of zeros has no size of its own."""
        first, usual = self._first_rms(tensors), self.sizes(tensors).usual
        return jnp.log(jnp.where(first < LEAST_REFERENCE * usual, usual, first) / usual)

    def timing(self, clock: Rows, age: PerTensor | None = None) -> Timing:
        """Warm-up and annealing. `age` counts the steps of a tensor that joined later."""
        step, horizon = clock["step"], clock["total"]
        length = jnp.maximum(horizon, 1)
        progress = jnp.minimum(step / length, 1)
        warm_up = jnp.where(horizon > 0, jnp.maximum(jnp.exp(self.log_warm_up) * length, 1), WARM_UP_STEPS)
        last = jnp.exp(self.log_last)
        annealed = last + (1 - last) * self.anneal(progress)
        growth = jnp.minimum(((step if age is None else age) + 1) / warm_up, 1)
        schedule = growth * jnp.where(horizon > 0, annealed, 1)
        return Timing(schedule, progress * (horizon > 0).astype(step.dtype))

    def recall(self, tensors: Tensors) -> tuple[PerTensor, NamedRows]:
        """The size of this step, and the next state."""
        state, guard = tensors.state, self.guard(tensors)
        age, (rms, usual) = state["age"], self.sizes(tensors)
        is_new = age <= 0
        seen = (tensors.network["trained"] > 0).astype(age.dtype)
        pretrained = jnp.where(is_new, seen, state["pretrained"])
        option = tensors.hyper["pretrained"]
        is_pretrained = jnp.where(option < 0, pretrained, option)
        factor = jnp.exp(self.log_pretrained * is_pretrained + self.guard_power * guard.log_ratio)
        if self.small_networks < 1:
            factor = factor * jnp.where(tensors.network["small"] > 0, self.small_networks, 1.0)
        role = tensors.shape["role"]
        reference = jnp.where(has_role(role, ("vector",)), jnp.maximum(rms, 1), jnp.maximum(rms, usual))
        if self.is_tiled:
            start = self._log_start(tensors)
            small = jnp.maximum(self.start_powers[0] * jnp.minimum(start - self.log_small, 0), math.log(LEAST_GROWTH))
            small = jnp.where(has_role(role, self.small_roles), small, 0)
            growth = jnp.exp(small + self.start_powers[1] * jnp.maximum(start, 0))
            if self.wide:
                growth = growth * jnp.where(has_role(role, ("matrix",)), self._of_width(tensors), 1)
            reference = jnp.where(has_role(role, (*TILED, "head")), usual * growth, reference)
        log_step = total([self.log_steps[i] * (role == i).astype(role.dtype) for i in range(len(ROLES))])
        step = jnp.exp(log_step) * reference * factor * self.timing(tensors.clock, age).schedule
        has_begun = ((age > 0) | (tensors.moments["square"] > 0)).astype(age.dtype)
        return step, {
            "age": age + has_begun,
            "first_rms": self._first_rms(tensors),
            "norm": guard.norm,
            "norm_weight": guard.weight,
            "norm_peak": guard.peak,
            "pretrained": pretrained,
        }

    def _of_width(self, tensors: Tensors) -> PerTensor:
        """Factor of the steps of a matrix that is wider than a tile.

        The polar factors of k × k tiles with one pair of singular vectors have √k times the spectral norm of the whole
        matrix's.
        """
        shape = tensors.shape
        # The aspect is that of the whole tensor: too large by the number of matrices that lie side by side in it, and
        # too small by the number of those in a stack.
        count = jnp.log(shape["coordinates"] / shape["area"])
        log_side = 0.5 * (jnp.log(shape["area"]) - jnp.abs(jnp.abs(jnp.log(shape["aspect"])) - count))
        return jnp.exp(-self.wide * jnp.maximum(log_side - math.log(self.tile), 0))


def cosine(progress: PerTensor) -> PerTensor:
    """1 at the start, 0 at the horizon, flat at both ends."""
    return 0.5 * (1 + jnp.cos(jnp.pi * progress))


def linear(progress: PerTensor) -> PerTensor:
    """1 at the start, 0 at the horizon."""
    return 1 - progress


def _is_trained_gain(tensors: Tensors) -> PerTensor:
    """1 for a vector of enough entries of one sign and roughly one size that are not all the same."""
    count, moments = tensors.shape["coordinates"], tensors.moments
    mean = moments["param_sum"] / count
    variance = moments["param_square"] / count - mean * mean
    is_gain = (variance < 0.25 * mean * mean) & (variance > GAIN_SPREAD * mean * mean)
    is_gain &= count >= LEAST_GAINS
    return (is_gain & has_role(tensors.shape["role"], ("vector",))).astype(count.dtype)
