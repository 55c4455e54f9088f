"""A fingerprint sees what a task computes, and not how its code is written."""

from typing import Any

import numpy as np
import pytest

from mnemo_compile.meta.evaluation import TaskConfig
from mnemo_compile.meta.evaluation._baselines import BASELINES, Setting, UNTUNED
from mnemo_compile.meta.evaluation._fingerprint import _close, figures, Fingerprint, fingerprint, TOLERANCE
from mnemo_compile.meta.evaluation._training import starts, train


def other_family(task: TaskConfig, **changes: Any) -> TaskConfig:
    return TaskConfig.model_validate({**task.model_dump(), "family": task.family.model_dump() | changes})


def test_the_losses_are_the_first_of_a_training_with_adamw(line: TaskConfig) -> None:
    runs = train(line, BASELINES[UNTUNED].of(()), Setting(np.zeros(1), np.zeros(1)), [0])
    # A line of a hundred steps has a step per bin.
    np.testing.assert_allclose(fingerprint(line).losses[:-1], runs.curves[0, :5], rtol=TOLERANCE / 10)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"kind": "iris", "permuted_inputs": True}},
        {"loss": "hinge"},
        pytest.param({"label_noise": 0.5}, marks=pytest.mark.slow),
        pytest.param({"batch": 9}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_another_computation_has_another_fingerprint(line: TaskConfig, changes: dict[str, Any]) -> None:
    assert not fingerprint(line).agrees_with(fingerprint(other_family(line, **changes)))


def test_what_was_trained_before_counts(again: TaskConfig) -> None:
    fresh, learned = fingerprint(again.model_copy(update={"before": None})), fingerprint(again)
    assert fresh.has_data_of(learned) and not fresh.computes_like(learned)


def test_another_start_or_another_data_set_is_seen_as_such(line: TaskConfig) -> None:
    before = fingerprint(line)
    size, direction = before.data
    assert before.agrees_with(before.model_copy(update={"data": [size, direction + 0.1 * TOLERANCE * size]}))
    moved = before.model_copy(update={"data": [size, direction + 10 * TOLERANCE * size]})
    assert before.computes_like(moved) and not before.has_data_of(moved) and not before.agrees_with(moved)
    for changes in ({"shapes": [[2]]}, {"start": [1.0, 0.0]}, {"losses": [1.0] * 6}, {"accuracy": None}):
        assert not before.agrees_with(Fingerprint.model_validate(before.model_dump() | changes)), changes


def test_figures_see_order_and_not_rounding(line: TaskConfig) -> None:
    params, _ = starts(line, [0])
    numbers = np.concatenate([np.ravel(each) for each in params])
    rounded = numbers * (1 + 1e-6 * np.random.default_rng(0).normal(size=numbers.shape))
    assert _close(figures([numbers]), figures([rounded]))
    assert not _close(figures([numbers]), figures([numbers[::-1]]))
    assert not _close(figures([numbers]), figures([1.01 * numbers]))
