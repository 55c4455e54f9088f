"""The figures of a comparison, on curves with known answers."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mnemo_compile.meta.evaluation._figures import (
    geometric_mean,
    over_seeds,
    over_tasks,
    Pair,
    SMOOTHED,
    smoothed,
    speedup,
    speedup_of,
    steps_to,
    validation_of,
)
from mnemo_compile.meta.evaluation._training import BINS, Runs

RATES = st.floats(0.5, 20)


def decay(rate: float, floor: float = 0.0) -> np.ndarray:
    return np.exp(-rate * np.arange(BINS) / BINS) + floor


def runs(curves: list[np.ndarray], validation: list[float] | None = None) -> Runs:
    rows = np.stack(curves)
    last = np.array(validation) if validation else rows[:, -1]
    return Runs(rows, rows[:, 0], rows.max(axis=1), last, np.full(len(rows), np.nan))


@given(RATES, st.floats(1, 4))
def test_a_training_that_is_as_many_times_as_fast_has_that_speedup(rate: float, times: float) -> None:
    # exp(-r t) reaches exp(-r) at t = 1; one with r × times reaches it at 1 / times.
    found = speedup(decay(rate * times), decay(rate))
    # The means of the smoothing, which sees a straight line where there is an exponential.
    assert found == pytest.approx(times, rel=0.3)
    assert found >= 1


@given(RATES, RATES)
def test_speedup_is_1_over_that_of_the_other_way_around(one: float, other: float) -> None:
    a, b = decay(one), decay(other)
    assert speedup(a, b) == pytest.approx(1 / speedup(b, a))
    assert (speedup(a, b) >= 1) == (smoothed(a)[-1] <= smoothed(b)[-1])


@given(RATES, st.floats(1e-3, 1e3))
def test_the_unit_of_the_loss_does_not_matter(rate: float, unit: float) -> None:
    a, b = decay(rate), decay(2.0, floor=0.1)
    assert speedup(unit * a, unit * b) == pytest.approx(speedup(a, b), rel=1e-6)


@given(st.lists(st.floats(0, 1), min_size=BINS, max_size=BINS), st.floats(0, 1), st.floats(0, 1))
def test_a_lower_loss_is_never_reached_earlier(curve: list[float], one: float, other: float) -> None:
    points = np.array(curve)
    assert steps_to(points, min(one, other)) >= steps_to(points, max(one, other))


def test_a_curve_reaches_its_own_end_at_the_end_and_never_what_is_below() -> None:
    assert steps_to(decay(3.0), smoothed(decay(3.0))[-1]) == pytest.approx(1.0)
    assert steps_to(decay(3.0), 0.0) == np.inf
    assert steps_to(decay(3.0), 2.0) == SMOOTHED / BINS


def test_a_training_that_is_not_finite_is_lost() -> None:
    broken = decay(3.0)
    broken[50:] = np.nan
    assert speedup(broken, decay(1.0)) == SMOOTHED / BINS
    # One that only rises is not there from the start.
    assert speedup(1.0 + np.arange(float(BINS)), decay(1.0)) == SMOOTHED / BINS


@settings(max_examples=5, deadline=None)
@given(st.lists(st.tuples(RATES, RATES), min_size=2, max_size=4))
def test_intervals_hold_the_figure_of_equal_seeds_and_spread_with_tasks(rates: list[tuple[float, float]]) -> None:
    pairs = [Pair(runs([decay(a)] * 3), runs([decay(b)] * 3)) for a, b in rates]
    for pair in pairs:
        value, low, high = over_seeds(pair, speedup_of)
        assert low == pytest.approx(value) == pytest.approx(high)
    value, low, high = over_tasks(pairs, speedup_of, geometric_mean)
    each = [speedup_of(pair) for pair in pairs]
    assert min(each) * 0.999 <= low <= high <= max(each) * 1.001
    assert low <= value * 1.001 and value <= high * 1.001
    assert value == pytest.approx(float(np.prod(each)) ** (1 / len(each)))


def test_validation_losses_are_compared_relative_to_theirs() -> None:
    pair = Pair(runs([decay(1)] * 2, [1.0, 2.0]), runs([decay(1)] * 2, [2.0, 2.0]))
    value, low, high = over_seeds(pair, validation_of)
    assert value == pytest.approx(-0.25)
    assert low == pytest.approx(-0.5) and high == pytest.approx(0.0)


def test_what_diverged_is_counted() -> None:
    rising = np.linspace(1, 10, BINS)
    broken = decay(1)
    broken[3] = np.inf
    assert runs([decay(1), rising, broken]).diverged.tolist() == [False, True, True]


def test_a_validation_loss_that_is_no_number_is_infinitely_worse() -> None:
    pair = Pair(runs([decay(1)] * 2, [1.0, np.nan]), runs([decay(1)] * 2, [2.0, 2.0]))
    value, low, high = over_seeds(pair, validation_of)
    assert value == high == np.inf and low == pytest.approx(-0.5)
    mean = over_tasks([pair, pair], validation_of, lambda values: float(np.mean(values)))
    assert mean.value == mean.high == np.inf and not np.isnan(mean.low)
