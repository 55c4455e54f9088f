"""The figures of a comparison: how many steps are saved, where a training ends, who is ahead."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ._training import BINS, Runs

SMOOTHED = BINS // 20
"""Points of a curve that a smoothed point is the mean of."""
RESAMPLES = 1000
"""Of a bootstrap."""


class Interval(NamedTuple):
    """A figure, and the range that holds it in 95 of 100 resamplings."""

    value: float
    low: float
    high: float


def smoothed(curve: Float[np.ndarray, " bins"]) -> Float[np.ndarray, " shorter"]:
    """Running means, the last of which is the final training loss."""
    return np.convolve(curve, np.full(SMOOTHED, 1 / SMOOTHED), mode="valid")


def steps_to(curve: Float[np.ndarray, " bins"], loss: float) -> float:
    """The share of all steps after which the smoothed curve first is at a loss, infinity if it never is.

    Between two points of the curve it is interpolated.
    """
    points = smoothed(curve)
    below = np.flatnonzero(points <= loss)
    if below.size == 0:
        return np.inf
    first = int(below[0])
    if first == 0:
        return SMOOTHED / BINS
    before, at = points[first - 1], points[first]
    part = (before - loss) / (before - at) if np.isfinite(before) else 1.0
    return (first - 1 + part + SMOOTHED) / BINS


def speedup(ours: Float[np.ndarray, " bins"], theirs: Float[np.ndarray, " bins"]) -> float:
    """Steps that they need over steps that we need, to the lowest loss that both end at or below.

    Where we reach their final loss, that is the steps they need to it over those we need. Where we never do, it is the
    steps they need to our final loss over those we need, which is at most 1. A training that ends no lower than it
    began needs all of its steps, and one of ours that is not finite counts as if they were there at once.
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
    """How much larger the mean over seeds is than theirs, as a share of theirs; infinite where ours is no number."""
    difference = float((np.mean(ours) - np.mean(theirs)) / np.abs(np.mean(theirs)))
    return np.inf if np.isfinite(np.mean(theirs)) and not np.isfinite(difference) else difference


class Pair(NamedTuple):
    """Two optimizers on one task, with the same seeds."""

    ours: Runs
    theirs: Runs

    def seeds(self, chosen: Sequence[int] | np.ndarray) -> "Pair":
        """The runs of these rows."""
        ours, theirs = (Runs(*(rows[np.asarray(chosen)] for rows in runs)) for runs in self)
        return Pair(ours, theirs)


def speedup_of(pair: Pair) -> float:
    """Of the mean curves over the seeds."""
    return speedup(pair.ours.curves.mean(axis=0), pair.theirs.curves.mean(axis=0))


def held_out_of(pair: Pair) -> float:
    """Relative difference of the losses on held-out batches."""
    return relative_difference(pair.ours.held_out, pair.theirs.held_out)


def over_seeds(pair: Pair, figure: Callable[[Pair], float]) -> Interval:
    """A figure of one task; seeds are resampled."""
    generator = np.random.default_rng(0)
    count = len(pair.ours.initial)
    drawn = [figure(pair.seeds(generator.integers(0, count, count))) for _ in range(RESAMPLES)]
    return _interval(figure(pair), drawn)


def over_tasks(
    pairs: Sequence[Pair], figure: Callable[[Pair], float], mean: Callable[[Sequence[float]], float]
) -> Interval:
    """The mean of a figure over tasks; tasks are resampled, and of each its seeds."""
    generator = np.random.default_rng(0)

    def draw() -> float:
        chosen = [pairs[place] for place in generator.integers(0, len(pairs), len(pairs))]
        counts = [len(pair.ours.initial) for pair in chosen]
        seeds = [generator.integers(0, count, count) for count in counts]
        return mean([figure(pair.seeds(rows)) for pair, rows in zip(chosen, seeds, strict=True)])

    return _interval(mean([figure(pair) for pair in pairs]), [draw() for _ in range(RESAMPLES)])


def _interval(value: float, drawn: Sequence[float]) -> Interval:
    # Between two of which one is infinite there is nothing.
    low, high = np.quantile(drawn, [0.025, 0.975], method="linear" if np.isfinite(drawn).all() else "nearest")
    return Interval(float(value), float(low), float(high))
