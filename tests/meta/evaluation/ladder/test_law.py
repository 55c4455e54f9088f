"""Results, verdicts and ratios follow from the trainings alone."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mnemo_compile.meta.evaluation.ladder import MULTIPLIERS
from mnemo_compile.meta.evaluation.ladder._law import best_run, ratio, results, verdict
from mnemo_compile.meta.evaluation.ladder._training import Run

LOSSES = st.floats(0.05, 0.9)


def run(setting: float, final: float, validation: float | None = 1.0, initial: float = 1.0) -> Run:
    """A training whose loss falls in a straight line to its final one, and stays for the last twentieth."""
    curve = [*np.linspace(initial, final, 95), *[final] * 5]
    return Run(
        setting=setting,
        curve=curve,
        initial=initial,
        highest=max(curve),
        validation_loss=validation,
        accuracy=None,
        seconds=0,
    )


def lost(setting: float) -> Run:
    """A training that ended in no number."""
    return run(setting, 0.5).model_copy(update={"curve": [1.0] * 50 + [None] * 50, "highest": None})


@given(st.lists(LOSSES, min_size=5, max_size=5))
def test_the_verdict_is_that_of_the_definition(finals: list[float]) -> None:
    runs = [run(multiplier, final) for multiplier, final in zip(MULTIPLIERS, finals, strict=True)]
    law = verdict(runs, is_text=False)
    assert law is not None
    assert min(finals) == finals[MULTIPLIERS.index(law.best)]
    assert law.holds == (min(finals[1:4]) == min(finals) and finals[2] / min(finals) - 1 <= 0.02)
    assert law.excess >= 0 and law.excess_fourfold == pytest.approx(finals[4] / min(finals) - 1)


@given(st.permutations(MULTIPLIERS), st.lists(LOSSES, min_size=5, max_size=5))
def test_the_order_of_trainings_and_the_scale_of_the_loss_change_no_verdict(
    order: list[float], finals: list[float]
) -> None:
    by = dict(zip(MULTIPLIERS, finals, strict=True))
    one = verdict([run(multiplier, by[multiplier]) for multiplier in MULTIPLIERS], is_text=False)
    other = verdict([run(multiplier, 64 * by[multiplier], initial=64) for multiplier in order], is_text=False)
    assert one is not None and other is not None
    assert other.holds == one.holds and other.excess == pytest.approx(one.excess, abs=1e-6)


def test_twice_the_step_must_not_diverge() -> None:
    runs = [run(multiplier, 0.5) for multiplier in MULTIPLIERS if multiplier != 2]
    runs[2] = run(1, 0.4)
    fine, broken = verdict([*runs, run(2, 0.6)], False), verdict([*runs, lost(2)], False)
    assert fine is not None and fine.holds and not fine.twice_diverges
    assert broken is not None and not broken.holds and broken.twice_diverges and broken.best == 1


def test_all_five_multipliers_are_needed() -> None:
    assert verdict([run(multiplier, 0.5) for multiplier in MULTIPLIERS[1:]], is_text=False) is None


def test_text_is_measured_by_its_validation_loss() -> None:
    runs = [run(1, 0.2, validation=3.0), run(2, 0.4, validation=2.0)]
    assert results(runs, is_text=True).best == 2 and results(runs, is_text=False).best == 1
    assert best_run(runs, is_text=True) is runs[1]
    assert ratio(runs[0], runs[1], is_text=True) == pytest.approx(1.5)
    assert ratio(runs[0], runs[1], is_text=False) == pytest.approx(0.5)


def test_a_rung_that_is_solved_is_measured_in_steps() -> None:
    # Both come below 1 % of the first loss, one twice as soon.
    slow = run(1, 0.001)
    fast = slow.model_copy(update={"setting": 2.0, "curve": [*np.linspace(1, 0.001, 45), *[0.001] * 55]})
    outcome = results([slow, fast, run(4, 0.5)], is_text=False)
    assert outcome.unit == "steps" and outcome.best == 2
    assert outcome.values[2] / outcome.values[1] == pytest.approx(0.5, abs=0.05)
    assert outcome.values[4] == np.inf
    assert ratio(fast, slow, is_text=False) == pytest.approx(0.5, abs=0.05)
    # If only one comes there, it is the steps to the loss that both reach.
    assert ratio(slow, run(1, 0.5), is_text=False) == pytest.approx(0.5, abs=0.05)


@given(LOSSES)
def test_a_training_that_diverged_is_last(final: float) -> None:
    outcome = results([lost(1), run(2, final)], is_text=False)
    assert outcome.values[1] == np.inf and outcome.best == 2
    assert ratio(lost(1), run(2, final), is_text=False) == np.inf
    assert results([run(1, 2.0)], is_text=False).values[1] == np.inf
