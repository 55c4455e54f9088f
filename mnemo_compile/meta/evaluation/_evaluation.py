"""What an evaluation says: of the cell on each task, beside each baseline, and on the whole suite."""

from collections.abc import Sequence

import numpy as np
import pydantic

from ._figures import geometric_mean, Interval


class TaskEvaluation(pydantic.BaseModel):
    """One cell on one task. Intervals hold 95 % of the resamplings of seeds."""

    task: str
    kind: str
    """What is trained, such as `vision` or `text`."""
    source: str
    """The publication that describes the task; empty for a task of this project's own."""
    family: str
    parameters: int
    steps: int
    seeds: int
    """How many runs the cell and each baseline have."""
    speedup: Interval
    """Over AdamW tuned for the task; below 1 the task is lost."""
    final: float
    """Training loss at the end, the mean over seeds; infinite where a run ended without a number."""
    final_tuned: float
    """Tuned AdamW's."""
    setting_tuned: str
    """Tuned AdamW's learning rate and schedule."""
    final_untuned: float
    """That of AdamW at 1e-3."""
    validation: Interval
    """Validation loss at the end: the relative difference from tuned AdamW's."""
    accuracy: float | None
    accuracy_tuned: float | None
    rank: int
    """Place by the final training loss, from 1."""
    ranked: int
    """How many optimizers were ranked, the cell included."""
    diverged: int
    """How many runs of the cell diverged."""
    highest: float
    """The largest ratio of the smoothed training loss to tuned AdamW's at the same step, after the first tenth."""
    curves: list[list[float | None]]

    @property
    def won(self) -> bool:
        """Whether the cell reached tuned AdamW's final training loss."""
        return self.final <= self.final_tuned

    @property
    def beats_untuned(self) -> bool:
        """Whether the final training loss is below that of AdamW at 1e-3."""
        return self.final < self.final_untuned


class BaselineComparison(pydantic.BaseModel):
    """The cell beside one baseline, on the tasks that have a result of it."""

    baseline: str
    tasks: int
    """How many those are."""
    speedup: float
    """The baseline's over AdamW tuned for the task, as a geometric mean."""
    ours: float
    """The cell's, on the same tasks."""
    beaten: int
    """On how many of them the cell ends with a lower training loss."""


class GroupEvaluation(pydantic.BaseModel):
    """One cell on the tasks of one kind, or on another group of tasks."""

    group: str
    tasks: int
    speedup: float
    """Over AdamW tuned for each task, as a geometric mean."""
    won: int
    """On how many of the tasks the cell reached tuned AdamW's final training loss."""


class Evaluation(pydantic.BaseModel):
    """One cell on a suite."""

    name: str
    version: str
    digest: str
    """Of the cell."""
    compiler: str
    """Version of this package."""
    suite: str
    state_bytes: float
    """Bytes of state per parameter, in the role that needs most."""
    step_time: float
    """Time of the reference step over that of `optax.adamw`, both jitted, on the suite's largest network."""
    speedup: Interval
    """Geometric mean over tasks."""
    validation: Interval
    """Mean over tasks of the relative difference of validation losses."""
    tasks: list[TaskEvaluation]
    baselines: list[BaselineComparison]

    @property
    def groups(self) -> list[GroupEvaluation]:
        """The tasks of each kind, those after a publication where there are any, and all."""
        kinds = sorted({task.kind for task in self.tasks})
        published = [task for task in self.tasks if task.source]
        return [
            *(_group(kind, [task for task in self.tasks if task.kind == kind]) for kind in kinds),
            *([_group("after a publication", published)] if published else []),
            _group("all", self.tasks),
        ]

    @property
    def runs(self) -> int:
        """How many trainings there were, on all tasks."""
        return sum(task.seeds for task in self.tasks)

    @property
    def divergences(self) -> int:
        """How many of them diverged."""
        return sum(task.diverged for task in self.tasks)

    @property
    def mean_rank(self) -> float:
        """The mean over tasks."""
        return float(np.mean([task.rank for task in self.tasks]))

    @property
    def worst(self) -> TaskEvaluation:
        """The task with the lowest speedup."""
        return min(self.tasks, key=lambda task: task.speedup.value)


def _group(name: str, tasks: Sequence[TaskEvaluation]) -> GroupEvaluation:
    return GroupEvaluation(
        group=name,
        tasks=len(tasks),
        speedup=geometric_mean([task.speedup.value for task in tasks]),
        won=sum(task.won for task in tasks),
    )
