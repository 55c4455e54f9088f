"""The result of a training on a rung, and whether one step size serves a rung (law 9)."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pydantic

from .._figures import speedup, steps_to
from ._optimizers import MULTIPLIERS
from ._training import as_runs, Run

SOLVED = 0.01
"""Below this fraction of the first loss, results are steps and not losses."""
TOLERANCE: dict[str, float] = {"validation loss": 0.02, "training loss": 0.02, "steps": 0.1}
"""How much above the best multiplier's the result of multiplier 1 may be."""
FOURFOLD = 0.1
"""How much the result of multiplier 4 may be, where more than law 9 is asked."""

Unit = Literal["validation loss", "training loss", "steps"]


class Results(NamedTuple):
    """The results of one optimizer on one rung, by its settings. Lower is better."""

    unit: Unit
    values: dict[float, float]
    """Infinite where a training diverged or never came to the loss."""

    @property
    def best(self) -> float:
        """The setting with the lowest result; of several, the one nearest to 1."""
        return min(self.values, key=lambda setting: (self.values[setting], abs(math.log(setting)), setting))


def results(runs: Sequence[Run], is_text: bool) -> Results:
    """The result of each training: its loss at the end, or how soon it solved the rung.

    On text that is the validation loss, elsewhere the training loss over the last twentieth of the steps. If one of the
    trainings ends below 1 % of its first loss, it is the fraction of the steps to that.
    """
    columns = as_runs(runs)
    unit: Unit = "validation loss" if is_text else "training loss"
    values = columns.validation_loss if is_text else columns.final
    if np.nanmin(columns.final / np.abs(columns.initial), initial=np.inf) < SOLVED:
        unit = "steps"
        values = np.array(
            [steps_to(curve, SOLVED * loss) for curve, loss in zip(columns.curves, columns.initial, strict=True)]
        )
    values = np.where(columns.diverged | ~np.isfinite(values), np.inf, values)
    return Results(unit, {run.setting: float(value) for run, value in zip(runs, values, strict=True)})


class Verdict(pydantic.BaseModel):
    """Law 9 on one rung."""

    best: float
    """The best multiplier."""
    excess: float
    """How much the result of multiplier 1 is above the best one's, relative to it."""
    excess_fourfold: float
    """The same of multiplier 4."""
    tolerance: float
    twice_diverges: bool

    @property
    def holds(self) -> bool:
        """Whether the best multiplier is ½, 1 or 2, multiplier 1 is close to it, and multiplier 2 does not diverge."""
        return 0.5 <= self.best <= 2 and self.excess <= self.tolerance and not self.twice_diverges


def verdict(runs: Sequence[Run], is_text: bool) -> Verdict | None:
    """What the trainings of a cell say; None where a multiplier is missing."""
    outcome = results(runs, is_text)
    if not set(MULTIPLIERS) <= set(outcome.values):
        return None
    best, values = outcome.best, outcome.values

    def excess(multiplier: float) -> float:
        return values[multiplier] / values[best] - 1 if np.isfinite(values[multiplier]) else np.inf

    twice = next(run for run in runs if run.setting == 2)
    return Verdict(
        best=best,
        excess=excess(1.0),
        excess_fourfold=excess(4.0),
        tolerance=TOLERANCE[outcome.unit],
        twice_diverges=bool(as_runs([twice]).diverged[0]),
    )


def best_run(runs: Sequence[Run], is_text: bool) -> Run:
    """The training with the lowest result."""
    best = results(runs, is_text).best
    return next(run for run in runs if run.setting == best)


def ratio(ours: Run, theirs: Run, is_text: bool) -> float:
    """Our result over theirs; below 1 it is better.

    Where one of the two ends below 1 % of its first loss, it is the steps to the lowest loss that both reach.
    """
    columns = as_runs([ours, theirs])
    if columns.diverged[0]:
        return np.inf
    if results([ours, theirs], is_text).unit == "steps":
        return 1 / speedup(columns.curves[0], columns.curves[1])
    losses = columns.validation_loss if is_text else columns.final
    return float(losses[0] / losses[1])
