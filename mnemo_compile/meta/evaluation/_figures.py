"""The figures of a comparison: how many steps an optimizer saves, and where its training ends."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ._training import BINS, Runs

SMOOTHED = BINS // 20
"""Points of a curve that a smoothed point is the mean of."""
RESAMPLES = 1000
"""How often the bootstrap resamples."""


class Interval(NamedTuple):
    """A figure, and the range that holds 95 % of its resamplings."""

    value: float
    low: float
    high: float


def smoothed(curve: Float[np.ndarray, " bins"]) -> Float[np.ndarray, " shorter"]:
    """Running means; the last one is the final training loss."""
    return np.convolve(curve, np.full(SMOOTHED, 1 / SMOOTHED), mode="valid")


def steps_to(curve: Float[np.ndarray, " bins"], loss: float) -> float:
    """The fraction of all steps after which the smoothed curve first reaches a loss; infinity if it never does.

    Between two points the curve is interpolated.
    """
    points = smoothed(curve)
    below = np.flatnonzero(points <= loss)
    if below.size == 0:
        return np.inf
    first = int(below[0])
    if first == 0:
        return SMOOTHED / BINS
    before, at = points[first - 1], points[first]
    fraction = (before - loss) / (before - at) if np.isfinite(before) else 1.0
    return (first - 1 + fraction + SMOOTHED) / BINS


def speedup(ours: Float[np.ndarray, " bins"], theirs: Float[np.ndarray, " bins"]) -> float:
    """Steps that they need over steps that we need, to the lowest loss that both reach.

    If we reach their final loss, it is the steps to that loss. If we do not, it is the steps to our final loss, and the
    speedup is at most 1. A training that ends no lower than it began needs all of its steps. If ours is not finite,
    the speedup is the lowest there is, as if they had reached the loss at once.
    """
    if not np.isfinite(ours).all():
        return SMOOTHED / BINS
    target = float(max(smoothed(ours)[-1], smoothed(theirs)[-1]))

    def needed(curve: Float[np.ndarray, " bins"]) -> float:
        points = smoothed(curve)
        return 1.0 if points[-1] >= points[0] else steps_to(curve, target)

    return needed(theirs) / needed(ours)


def geometric_mean(values: Sequence[float]) -> float:
    """The exponential of the mean logarithm."""
    return float(np.exp(np.mean(np.log(values))))


def relative_difference(ours: Float[np.ndarray, " seeds"], theirs: Float[np.ndarray, " seeds"]) -> float:
    """How much larger our mean over seeds is, relative to theirs; infinite where ours is not a number."""
    difference = float((np.mean(ours) - np.mean(theirs)) / np.abs(np.mean(theirs)))
    return np.inf if np.isfinite(np.mean(theirs)) and not np.isfinite(difference) else difference


class Pair(NamedTuple):
    """Two optimizers on one task, with the same seeds."""

    ours: Runs
    theirs: Runs

    def seeds(self, chosen: Sequence[int] | np.ndarray) -> "Pair":
        """The runs of some of the seeds."""
        return Pair(self.ours.rows(np.asarray(chosen)), self.theirs.rows(np.asarray(chosen)))


def speedup_of(pair: Pair) -> float:
    """The speedup of the mean curves over the seeds."""
    return speedup(pair.ours.curves.mean(axis=0), pair.theirs.curves.mean(axis=0))


def validation_of(pair: Pair) -> float:
    """The relative difference of the validation losses."""
    return relative_difference(pair.ours.validation_loss, pair.theirs.validation_loss)


def over_seeds(pair: Pair, figure: Callable[[Pair], float]) -> Interval:
    """A figure of one task, with an interval from resampling its seeds."""
    generator = np.random.default_rng(0)
    count = len(pair.ours.initial)
    drawn = [figure(pair.seeds(generator.integers(0, count, count))) for _ in range(RESAMPLES)]
    return _interval(figure(pair), drawn)


def over_tasks(
    pairs: Sequence[Pair], figure: Callable[[Pair], float], mean: Callable[[Sequence[float]], float]
) -> Interval:
    """The mean of a figure over tasks, with an interval from resampling the tasks, and the seeds of each."""
    generator = np.random.default_rng(0)

    def draw() -> float:
        chosen = [pairs[place] for place in generator.integers(0, len(pairs), len(pairs))]
        counts = [len(pair.ours.initial) for pair in chosen]
        seeds = [generator.integers(0, count, count) for count in counts]
        return mean([figure(pair.seeds(rows)) for pair, rows in zip(chosen, seeds, strict=True)])

    return _interval(mean([figure(pair) for pair in pairs]), [draw() for _ in range(RESAMPLES)])


def _interval(value: float, drawn: Sequence[float]) -> Interval:
    # There is no value between a finite one and an infinite one.
    low, high = np.quantile(drawn, [0.025, 0.975], method="linear" if np.isfinite(drawn).all() else "nearest")
    return Interval(float(value), float(low), float(high))
