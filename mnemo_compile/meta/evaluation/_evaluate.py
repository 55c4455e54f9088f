"""Evaluating a frozen cell on a suite, beside the baselines."""

import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..._suggestions import did_you_mean
from ..._version import version
from ...cell import AbstractCell
from ...errors import UsageError
from ...frozen import FrozenCell
from ...step import ROLES
from . import _figures, _store
from ._baselines import BASELINES, TUNED, UNTUNED
from ._cell_optimizer import as_optax
from ._evaluation import BaselineComparison, Evaluation, TaskEvaluation
from ._figures import Pair
from ._progress import Progress
from ._step_time import relative_step_time
from ._suites import load_suite, Suite, TaskConfig
from ._training import Runs, train
from ._tuning import plain, Result, tune


class _Compared(NamedTuple):
    evaluation: TaskEvaluation
    pair: Pair
    """The cell beside tuned AdamW."""
    baselines: dict[str, Pair]
    """Every other baseline beside tuned AdamW, by name."""


def evaluate(frozen: FrozenCell, suite: str, *, seeds: int | None = None, tasks: Sequence[str] = ()) -> Evaluation:
    """Evaluates one cell as `evaluate_all` does."""
    return evaluate_all([frozen], suite, seeds=seeds, tasks=tasks)[0]


def evaluate_all(
    cells: Sequence[FrozenCell],
    suite: str,
    *,
    seeds: int | None = None,
    tasks: Sequence[str] = (),
    then: Callable[[list[Evaluation]], None] = lambda evaluations: None,
) -> list[Evaluation]:
    """Trains every task of a suite with each cell, and compares with the baselines.

    A call that is stopped keeps the tasks that it has finished, and the next one with the same arguments goes on.

    **Arguments:**

    - `cells`: they know the number of steps, and nothing of them is tuned.
    - `suite`: the name of a suite, or the path of a TOML file. If a task has no current results of AdamW, they are
        measured first and kept in the cache folder.
    - `seeds`: runs of each task; by default each task's own number.
    - `tasks`: names of the tasks to take; by default all.
    - `then`: is called with the evaluations, before what was kept of them is removed.

    **Raises:** `UsageError` for a suite or a task that does not exist, and for more seeds than the baselines have.
    """
    loaded = load_suite(suite)
    chosen = _chosen(loaded, tasks)
    progress = [Progress(loaded, frozen) for frozen in cells]
    evaluations = [_evaluate(frozen, loaded, chosen, seeds, each) for frozen, each in zip(cells, progress, strict=True)]
    then(evaluations)
    for each in progress:
        each.forget(chosen)
    return evaluations


def _evaluate(
    frozen: FrozenCell, loaded: Suite, chosen: Sequence[TaskConfig], seeds: int | None, progress: Progress
) -> Evaluation:
    cell = frozen.cell()
    compared = []
    for place, task in enumerate(chosen, start=1):
        _say(f"{frozen.name}, task {place} of {len(chosen)}: {task.name} …")
        compared.append(_compare(loaded, task, cell, seeds, progress))
    pairs = [each.pair for each in compared]
    comparisons = [_beside(name, compared) for name in BASELINES]
    return Evaluation(
        name=frozen.name,
        version=frozen.version,
        digest=frozen.digest,
        compiler=version(),
        suite=loaded.name,
        state_bytes=max(
            sum(slot.bytes_per_parameter(role, cell.chunk_length) for slot in cell.memory_slots) for role in ROLES
        ),
        step_time=relative_step_time(cell, max(chosen, key=_size)),
        speedup=_figures.over_tasks(pairs, _figures.speedup_of, _figures.geometric_mean),
        validation=_figures.over_tasks(pairs, _figures.validation_of, lambda values: float(np.mean(values))),
        tasks=[each.evaluation for each in compared],
        baselines=[comparison for comparison in comparisons if comparison is not None],
    )


def baseline_results(suite: Suite, task: TaskConfig, seeds: int) -> dict[str, Result]:
    """What the baselines reach on a task. The two that every task needs are measured if they are missing."""
    results = _store.current(suite.name, task)
    for name in (TUNED, UNTUNED):
        if name not in results or len(results[name].seeds) < task.seeds:
            _say(f"{task.name}: measuring {name}, which has no current result of {task.seeds} seeds …")
            results[name] = tune(task, BASELINES[name], range(max(seeds, task.seeds)))
            _store.keep(suite.name, task, {name: results[name]}, _store.cached_path(suite.name))
    fewest = min(len(results[name].seeds) for name in (TUNED, UNTUNED))
    if seeds > fewest:
        raise UsageError(
            f"the baselines of {task.name} have {fewest} seeds; ask for so many, or measure more with: "
            f"python -m mnemo_compile.meta.evaluation {shlex.quote(suite.ref)} --task {task.name} --seeds {seeds}"
        )
    return {name: result for name, result in results.items() if len(result.seeds) >= seeds}


def _chosen(suite: Suite, names: Sequence[str]) -> list[TaskConfig]:
    tasks = {task.name: task for task in suite.tasks}
    for name in names:
        if name not in tasks:
            raise UsageError(
                f"the suite {suite.name} has no task '{name}'; it has {', '.join(tasks)}{did_you_mean(name, tasks)}"
            )
    return [task for name, task in tasks.items() if not names or name in names]


def _size(task: TaskConfig) -> int:
    return sum(math.prod(shape) for shape in task.build().shapes)


def _compare(suite: Suite, task: TaskConfig, cell: AbstractCell, seeds: int | None, progress: Progress) -> _Compared:
    seeds = seeds or task.seeds
    results = baseline_results(suite, task, seeds)
    began = time.monotonic()
    ours = progress.read(task, seeds)
    is_kept = ours is not None
    if ours is None:
        names = task.build().names
        runs = train(task, lambda setting, steps: as_optax(cell, steps, names), np.zeros(seeds), range(seeds))
        ours = Runs(*(column.astype(np.float64) for column in runs))
        progress.keep(task, ours)
    evaluation = _evaluated(task, ours, results)
    outcome = f"{evaluation.speedup.value:.2f} × tuned AdamW, loss {evaluation.final:.4g}"
    how = "kept from a call that was stopped" if is_kept else f"{time.monotonic() - began:.0f} s"
    _say(f"{task.name}: {outcome} to {evaluation.final_tuned:.4g} ({how})")
    tuned = results[TUNED].runs.rows(slice(seeds))
    others = {name: Pair(result.runs.rows(slice(seeds)), tuned) for name, result in results.items() if name != TUNED}
    return _Compared(evaluation, Pair(ours, tuned), others)


def _evaluated(task: TaskConfig, ours: Runs, results: dict[str, Result]) -> TaskEvaluation:
    seeds = len(ours.initial)
    runs = {name: result.runs.rows(slice(seeds)) for name, result in results.items()}
    tuned, pair, final = results[TUNED], Pair(ours, runs[TUNED]), _mean_final(ours)
    ratio = _figures.smoothed(ours.curves.mean(axis=0)) / _figures.smoothed(runs[TUNED].curves.mean(axis=0))
    return TaskEvaluation(
        task=task.name,
        kind=task.kind,
        source=task.source,
        family=task.build().name,
        parameters=_size(task),
        steps=task.steps,
        seeds=seeds,
        speedup=_figures.over_seeds(pair, _figures.speedup_of),
        final=final,
        final_tuned=_mean_final(runs[TUNED]),
        setting_tuned=f"{tuned.rate:.2g} {tuned.schedule}",
        final_untuned=_mean_final(runs[UNTUNED]),
        validation=_figures.over_seeds(pair, _figures.validation_of),
        accuracy=_accuracy(ours),
        accuracy_tuned=_accuracy(runs[TUNED]),
        rank=1 + sum(_mean_final(theirs) < final for theirs in runs.values()),
        ranked=1 + len(runs),
        diverged=int(ours.diverged.sum()),
        # A curve that is not a number has diverged.
        highest=float(np.max(np.nan_to_num(ratio[len(ratio) // 10 :], nan=np.inf))),
        curves=[plain(row) for row in ours.curves],
    )


def _beside(baseline: str, compared: Sequence[_Compared]) -> BaselineComparison | None:
    """The cell beside a baseline; None where no task has a result of it, and for tuned AdamW, the unit of a speedup."""
    common = [each for each in compared if baseline in each.baselines]
    if not common:
        return None

    def speedup(pairs: Sequence[Pair]) -> float:
        return _figures.geometric_mean([_figures.speedup_of(pair) for pair in pairs])

    theirs = [each.baselines[baseline] for each in common]
    beaten = (each.evaluation.final < _mean_final(pair.ours) for each, pair in zip(common, theirs, strict=True))
    return BaselineComparison(
        baseline=baseline,
        tasks=len(common),
        speedup=speedup(theirs),
        ours=speedup([each.pair for each in common]),
        beaten=sum(beaten),
    )


def _mean_final(runs: Runs) -> float:
    """The mean over seeds of the final training loss; infinite where a run ended without a number."""
    value = float(np.mean(runs.final))
    return value if math.isfinite(value) else math.inf


def _accuracy(runs: Runs) -> float | None:
    value = float(np.mean(runs.accuracy))
    return value if math.isfinite(value) else None


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
