"""Tuning a baseline for a task: every point of its grid with one seed, the best points with all seeds."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pydantic

from ._baselines import Baseline, SCHEDULES, Setting
from ._suites import TaskConfig
from ._training import Runs, train

FINALISTS = 6
"""How many points of the grid, the best with the first seed, are run with the other seeds too."""


class Point(pydantic.BaseModel):
    """A point of the grid, and the final training loss of each seed that was run; null where it is not a number."""

    rate: float
    schedule: str
    final: list[float | None]


class Result(pydantic.BaseModel):
    """What a baseline reaches on a task with its best setting; one row per seed."""

    options: str
    """The baseline's options when it was run."""
    seeds: list[int]
    rate: float
    schedule: str
    curves: list[list[float | None]]
    initial: list[float]
    validation_loss: list[float | None]
    accuracy: list[float | None]
    diverged: int
    """How many runs of the best setting diverged."""
    grid: list[Point]

    @property
    def final(self) -> np.ndarray:
        """Final training loss of each seed."""
        return self.runs.final

    @property
    def runs(self) -> Runs:
        """The trainings."""
        columns = (self.curves, self.initial, self.validation_loss, self.accuracy)
        curves, initial, validation, accuracy = (np.array(rows, np.float64) for rows in columns)
        return Runs(curves, initial, np.nan_to_num(curves, nan=np.inf).max(axis=1), validation, accuracy)

    def is_of(self, baseline: Baseline) -> bool:
        """Whether the baseline has the same options today, and the same grid."""
        grid = [(point.rate, point.schedule) for point in self.grid]
        return self.options == baseline.options and grid == [_point(setting) for setting in baseline.grid]


def tune(task: TaskConfig, baseline: Baseline, seeds: Sequence[int]) -> Result:
    """Runs every point of the grid with the first seed, and the best of them with all seeds.

    The result is the point with the lowest final training loss, as the mean over the seeds.
    """
    grid = baseline.grid
    first = _with_first_seed(task, baseline, seeds)
    order = np.argsort([_rank(value) for value in first], kind="stable")[:FINALISTS]
    finalists = [grid[int(place)] for place in np.sort(order)]
    runs = _run(task, baseline, [(setting, seed) for setting in finalists for seed in seeds], seeds)
    finals = runs.final.reshape(len(finalists), len(seeds))
    best = int(np.argmin([_rank(row.mean()) for row in finals]))
    best_runs = runs.rows(slice(best * len(seeds), (best + 1) * len(seeds)))
    rate, schedule = _point(finalists[best])
    return Result(
        options=baseline.options,
        seeds=list(seeds),
        rate=rate,
        schedule=schedule,
        curves=[plain(row) for row in best_runs.curves],
        initial=plain(best_runs.initial),
        validation_loss=plain(best_runs.validation_loss),
        accuracy=plain(best_runs.accuracy),
        diverged=int(best_runs.diverged.sum()),
        grid=[
            Point(
                rate=_point(setting)[0],
                schedule=_point(setting)[1],
                final=plain(finals[finalists.index(setting)] if setting in finalists else first[[place]]),
            )
            for place, setting in enumerate(grid)
        ],
    )


def plain(values: Iterable[float]) -> list[Any]:
    """Numbers with five digits for JSON, and None for what is not a number."""
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values]


def _point(setting: Setting) -> tuple[float, str]:
    return float(f"{setting.rate:.6g}"), SCHEDULES[int(setting.cosine)]


def _with_first_seed(task: TaskConfig, baseline: Baseline, seeds: Sequence[int]) -> np.ndarray:
    """The final loss at every point of the grid; zeros where every point is a finalist."""
    if len(baseline.grid) <= FINALISTS:
        return np.zeros(len(baseline.grid))
    return _run(task, baseline, [(setting, seeds[0]) for setting in baseline.grid], seeds).final


def _run(task: TaskConfig, baseline: Baseline, rows: list[tuple[Setting, int]], seeds: Sequence[int]) -> Runs:
    """The training of each row.

    Others are beside them, so that the grid and the finalists have the same size and seeds, and share a program.
    """
    count = len(baseline.grid)
    size = max(count + len(seeds), FINALISTS * len(seeds)) if count > FINALISTS else len(rows)
    filled = rows + [(rows[0][0], seeds[place % len(seeds)]) for place in range(size - len(rows))]
    stacked = Setting(*(np.array([getattr(s, name) for s, _ in filled], np.float32) for name in Setting._fields))
    runs = train(task, baseline.of(task.build().tensors), stacked, [seed for _, seed in filled])
    return runs.rows(slice(len(rows)))


def _rank(value: float) -> float:
    return value if np.isfinite(value) else np.inf
