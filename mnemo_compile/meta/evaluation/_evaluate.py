"""A frozen cell on a suite, beside its opponents."""

import math
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pydantic

from ...step import ROLES
from ..._version import version
from ...frozen import FrozenCell
from ...cell import AbstractCell
from ...errors import UsageError

from . import _baselines, _judgement
from ._judgement import Interval, Pair
from ._opponents import OPPONENTS
from ._suites import load_suite, Suite, TaskConfig
from ._training import as_optax, Runs, train

TUNED, PLAIN = "adamw", "adamw-1e-3"
"""The opponents that every task is judged by: AdamW tuned for the task, and as a user would start."""


class TaskJudgement(pydantic.BaseModel):
    """One cell on one task. Intervals hold 95 % of the resamplings of seeds."""

    task: str
    family: str
    parameters: int
    steps: int
    seeds: int
    """Runs, of the cell and of each opponent."""
    speedup: Interval
    """Over AdamW tuned for the task; below 1 the task is lost."""
    final: float
    """Training loss at the end, the mean over seeds."""
    final_tuned: float
    """AdamW's, tuned."""
    setting_tuned: str
    final_plain: float
    """AdamW's at 1e-3."""
    held_out: Interval
    """Validation loss at the end: relative difference from tuned AdamW's."""
    accuracy: float | None
    accuracy_tuned: float | None
    rank: int
    """Place by the final training loss, from 1."""
    ranked: int
    """How many were ranked, the cell among them."""
    diverged: int
    """Runs that diverged."""
    highest: float
    """The largest ratio of the smoothed training loss to tuned AdamW's at the same step, after the first tenth."""
    same_data: bool
    """Whether it began where tuned AdamW did when that was measured: else data have changed, such as a library's."""
    curves: list[list[float | None]]

    @property
    def won(self) -> bool:
        """Whether tuned AdamW's final training loss was reached."""
        return self.final <= self.final_tuned

    @property
    def beats_plain(self) -> bool:
        """Whether the final training loss is below that of AdamW at 1e-3."""
        return self.final < self.final_plain


class OpponentJudgement(pydantic.BaseModel):
    """The cell beside one opponent, on the tasks on which that has a baseline."""

    opponent: str
    tasks: int
    """How many those are."""
    speedup: float
    """The opponent's over AdamW tuned for the task, geometric mean."""
    ours: float
    """The cell's, on the same tasks."""
    beaten: int
    """Tasks on which the cell ends with a lower training loss."""


class Judgement(pydantic.BaseModel):
    """One cell on a suite."""

    name: str
    version: str
    digest: str
    """Of the cell."""
    compiler: str
    """Version of this package."""
    suite: str
    state_bytes: float
    """Bytes of state a parameter, the most of all roles."""
    step_time: float
    """Time of the reference step over that of `optax.adamw`, both jitted, on the suite's largest network."""
    speedup: Interval
    """Geometric mean over tasks."""
    held_out: Interval
    """Mean over tasks of the relative difference of validation losses."""
    tasks: list[TaskJudgement]
    opponents: list[OpponentJudgement]

    @property
    def runs(self) -> int:
        """Trainings, on all tasks."""
        return sum(task.seeds for task in self.tasks)

    @property
    def divergences(self) -> int:
        """Runs that diverged, on all tasks."""
        return sum(task.diverged for task in self.tasks)

    @property
    def mean_rank(self) -> float:
        """Over tasks."""
        return float(np.mean([task.rank for task in self.tasks]))

    @property
    def worst(self) -> TaskJudgement:
        """The task with the lowest speedup."""
        return min(self.tasks, key=lambda task: task.speedup.value)


class _Judged(NamedTuple):
    judgement: TaskJudgement
    pair: Pair
    opponents: dict[str, Pair]
    """Each opponent beside tuned AdamW, by name."""


def evaluate(frozen: FrozenCell, suite: str, *, seeds: int | None = None, tasks: Sequence[str] = ()) -> Judgement:
    """Trains every task of a suite with a cell and compares with the opponents.

    **Arguments:**

    - `frozen`: the cell, taken as it is: told the number of steps, with nothing tuned.
    - `suite`: the name of a suite, or the path of a TOML file. Of a task without baselines of today's code, AdamW's are
        measured first and kept in the cache folder.
    - `seeds`: runs of each task; by default as many as the suite says of each.
    - `tasks`: names of the tasks to take; all by default.

    **Raises:** `UsageError` for a suite or a task that does not exist, and for more seeds than the baselines have.
    """
    found = load_suite(suite)
    chosen = _chosen(found, tasks)
    cell = frozen.cell()
    judged = [_judge(found, task, cell, seeds) for task in chosen]
    pairs = [each.pair for each in judged]
    largest = max(chosen, key=lambda task: _size(task))
    return Judgement(
        name=frozen.name,
        version=frozen.version,
        digest=frozen.digest,
        compiler=version(),
        suite=found.name,
        state_bytes=max(
            sum(slot.bytes_a_coordinate(role, cell.chunk_length) for slot in cell.memory_slots) for role in ROLES
        ),
        step_time=_step_time(cell, largest),
        speedup=_judgement.over_tasks(pairs, _judgement.speedup_of, _judgement.geometric_mean),
        held_out=_judgement.over_tasks(pairs, _judgement.held_out_of, lambda values: float(np.mean(values))),
        tasks=[each.judgement for each in judged],
        opponents=[found for name in OPPONENTS if (found := _beside(name, judged)) is not None],
    )


def _chosen(suite: Suite, names: Sequence[str]) -> list[TaskConfig]:
    known = {task.name: task for task in suite.tasks}
    for name in names:
        if name not in known:
            raise UsageError(f"the suite {suite.name} has no task '{name}'; it has {', '.join(known)}")
    return [task for name, task in known.items() if not names or name in names]


def _size(task: TaskConfig) -> int:
    return sum(math.prod(shape) for shape in task.build().shapes)


def _judge(suite: Suite, task: TaskConfig, cell: AbstractCell, seeds: int | None) -> _Judged:
    seeds = seeds or task.seeds
    opponents = baselines(suite, task, seeds)
    began = time.monotonic()
    ours = train(task, lambda setting, steps: as_optax(cell, steps), np.zeros(seeds), range(seeds))
    tuned = opponents[TUNED]
    theirs = Runs(*(rows[:seeds] for rows in tuned.runs))
    pair = Pair(ours, theirs)
    finals = [_ended(result.final[:seeds]) for result in opponents.values()]
    final = _ended(ours.final)
    ratio = _judgement.smoothed(ours.curves.mean(axis=0)) / _judgement.smoothed(theirs.curves.mean(axis=0))
    judgement = TaskJudgement(
        task=task.name,
        family=task.build().name,
        parameters=_size(task),
        steps=task.steps,
        seeds=seeds,
        speedup=_judgement.over_seeds(pair, _judgement.speedup_of),
        final=final,
        final_tuned=_ended(theirs.final),
        setting_tuned=f"{tuned.rate:.2g} {tuned.schedule}",
        final_plain=_ended(opponents[PLAIN].final[:seeds]),
        held_out=_judgement.over_seeds(pair, _judgement.held_out_of),
        accuracy=_accuracy(ours),
        accuracy_tuned=_accuracy(theirs),
        rank=1 + sum(other < final for other in finals),
        ranked=1 + len(finals),
        diverged=int(ours.diverged.sum()),
        # A curve that is not a number has diverged.
        highest=float(np.max(np.nan_to_num(ratio[len(ratio) // 10 :], nan=np.inf))),
        same_data=_starts_alike(task, ours, theirs),
        curves=[_baselines.plain(row) for row in ours.curves],
    )
    if not judgement.same_data:
        print(
            f"{task.name}: its data are not those that the baselines were measured on, as those of another Python or "
            f"scikit-learn; measure them here with: python -m mnemo_compile.meta.evaluation {shlex.quote(suite.ref)} "
            f"--task {task.name} --anew",
            file=sys.stderr,
            flush=True,
        )
    said = f"{judgement.speedup.value:.2f} × tuned AdamW, loss {final:.4g} to {judgement.final_tuned:.4g}"
    print(f"{task.name}: {said} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    others = {
        name: Pair(Runs(*(rows[:seeds] for rows in result.runs)), theirs)
        for name, result in opponents.items()
        if name != TUNED
    }
    return _Judged(judgement, pair, others)


def _beside(opponent: str, judged: Sequence[_Judged]) -> OpponentJudgement | None:
    """The cell beside an opponent; None where that has no baseline, and for tuned AdamW, which all is measured by."""
    shared = [each for each in judged if opponent in each.opponents]
    if not shared:
        return None

    def speedup(pairs: Sequence[Pair]) -> float:
        return _judgement.geometric_mean([_judgement.speedup_of(pair) for pair in pairs])

    theirs = [each.opponents[opponent] for each in shared]
    return OpponentJudgement(
        opponent=opponent,
        tasks=len(shared),
        speedup=speedup(theirs),
        ours=speedup([each.pair for each in shared]),
        beaten=sum(each.judgement.final < _ended(pair.ours.final) for each, pair in zip(shared, theirs, strict=True)),
    )


def _ended(finals: np.ndarray) -> float:
    """The mean over seeds of the final training loss; infinite where a run ended in no number."""
    value = float(np.mean(finals))
    return value if math.isfinite(value) else math.inf


def _starts_alike(task: TaskConfig, ours: Runs, theirs: Runs) -> bool:
    """Whether the losses of the first batches are the same but for roundings, which a training before makes larger."""
    return bool(np.allclose(ours.initial, theirs.initial, rtol=1e-3 if task.before is None else 0.1))


def _accuracy(runs: Runs) -> float | None:
    value = float(np.mean(runs.accuracy))
    return value if math.isfinite(value) else None


def baselines(suite: Suite, task: TaskConfig, seeds: int) -> dict[str, _baselines.Result]:
    """What the opponents reach on a task; the two it is judged by are measured if need be."""
    known = _baselines.current(suite.name, task)
    for name in (TUNED, PLAIN):
        if name not in known or len(known[name].seeds) < task.seeds:
            print(
                f"{task.name}: measuring {name}, which has no baseline of {task.seeds} seeds yet …",
                file=sys.stderr,
                flush=True,
            )
            known[name] = _baselines.measure(task, OPPONENTS[name], range(max(seeds, task.seeds)))
            _baselines.keep(suite.name, task, {name: known[name]}, _baselines.cached_path(suite.name))
    fewest = min(len(known[name].seeds) for name in (TUNED, PLAIN))
    if seeds > fewest:
        raise UsageError(
            f"the baselines of {task.name} have {fewest} seeds; ask for so many, or measure more with: "
            f"python -m mnemo_compile.meta.evaluation {shlex.quote(suite.ref)} --task {task.name} --seeds {seeds}"
        )
    return {name: result for name, result in known.items() if len(result.seeds) >= seeds}


REPEATS = 20
"""Steps that are timed."""


def _step_time(cell: AbstractCell, task: TaskConfig) -> float:
    """The optimizer's part of a step, ours over AdamW's."""
    shapes = task.build().shapes
    key = jax.random.key(0)
    params = [jax.random.normal(jax.random.fold_in(key, place), shape) for place, shape in enumerate(shapes)]

    def seconds(optimizer: optax.GradientTransformation) -> float:
        optimizer = optax.with_extra_args_support(optimizer)

        def step(params: Any, state: Any) -> tuple[Any, Any]:
            updates, state = optimizer.update(params, state, params)
            return optax.apply_updates(params, updates), state

        compiled = jax.jit(step)
        now = compiled(params, optimizer.init(jax.tree.map(jnp.copy, params)))
        times = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            now = jax.block_until_ready(compiled(*now))
            times.append(time.perf_counter() - began)
        return float(np.median(times))

    return seconds(as_optax(cell, 1000)) / seconds(optax.adamw(1e-3))
