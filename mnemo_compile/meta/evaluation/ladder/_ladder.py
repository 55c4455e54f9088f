"""Evaluating a frozen cell on a ladder, beside the baselines."""

import functools
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import pydantic

from ...._version import version
from ....frozen import FrozenCell
from . import _store
from ._law import best_run, ratio, results, Unit, Verdict, verdict
from ._optimizers import BASELINES, MULTIPLIERS, of_cell, Optimizer
from ._rungs import Half, LADDER, Ladder, load_ladder, Rung, select
from ._training import as_runs, Run, Trainer


class BaselineResult(pydantic.BaseModel):
    """A baseline at its best learning rate on one rung."""

    rate: float
    unit: Unit
    result: float
    ratio: float | None
    """Our result at multiplier 1 over its; null where we have none."""
    seconds: float


class RungEvaluation(pydantic.BaseModel):
    """One cell on one rung."""

    rung: str
    network: str
    axis: str
    half: Half
    is_plain: bool
    """Whether baselines are a fair measure: the cell knows what they know."""
    parameters: int
    steps: int
    unit: Unit
    results: dict[float, float]
    """By multiplier; infinite where a training diverged or never came to the loss."""
    diverged: list[float]
    """Multipliers whose training diverged."""
    seconds: float | None
    """Of the training with multiplier 1."""
    law: Verdict | None
    """None where a multiplier was not run."""
    baselines: dict[str, BaselineResult]

    @property
    def ratio(self) -> float | None:
        """Result at multiplier 1 over that of the best baseline; None where a baseline is missing."""
        ratios = [baseline.ratio for baseline in self.baselines.values()]
        if len(ratios) < len(BASELINES) or any(value is None for value in ratios):
            return None
        return max(value for value in ratios if value is not None)


class LadderEvaluation(pydantic.BaseModel):
    """One cell on a ladder."""

    name: str
    version: str
    digest: str
    compiler: str
    ladder: str
    rungs: list[RungEvaluation]

    def half(self, half: Half) -> list[RungEvaluation]:
        """The rungs of a half."""
        return [rung for rung in self.rungs if rung.half == half]


def evaluate_ladder(
    frozen: FrozenCell,
    ladder: str = LADDER,
    *,
    rungs: str = "all",
    names: Sequence[str] = (),
    multipliers: Sequence[float] = MULTIPLIERS,
    minutes: float = math.inf,
    after: Callable[[LadderEvaluation], None] = lambda evaluation: None,
) -> LadderEvaluation:
    """Trains every rung with a cell at each multiplier of its step, and compares with the baselines.

    Every training is kept as it comes, so a second call goes on where the first one stopped.

    **Arguments:**

    - `ladder`: the name of a ladder, or the path of a TOML file.
    - `rungs`: `choose`, `report`, `all`, or `large` for the ladder of large networks.
    - `names`: of the rungs to take; by default all.
    - `minutes`: no training is begun that would end later, as far as is known.
    - `after`: is called after each training.

    **Raises:** `UsageError` for a ladder or a rung that does not exist.
    """
    loaded = load_ladder(ladder, rungs)
    subset = select(loaded, rungs, names)
    cell = of_cell(frozen.cell(), frozen.digest, multipliers)
    path = _store.cell_path(loaded, frozen.digest)

    def evaluation() -> LadderEvaluation:
        runs = {rung.name: _runs(path, rung, cell) for rung in subset}
        return LadderEvaluation(
            name=frozen.name,
            version=frozen.version,
            digest=frozen.digest,
            compiler=version(),
            ladder=loaded.name,
            rungs=[_evaluated(loaded, rung, runs[rung.name]) for rung in subset if runs[rung.name]],
        )

    for _ in measure(path, subset, cell, minutes):
        after(evaluation())
    return evaluation()


def measure(path: pathlib.Path, rungs: Sequence[Rung], optimizer: Optimizer, minutes: float) -> Iterator[Rung]:
    """Trains each rung at each setting that has no current result, keeps the result, and says on which rung it was.

    A rung's settings follow one another, so that its program is dropped before the next one's is compiled. Where time
    is limited, the middle setting of every rung comes first.
    """
    order = sorted(optimizer.settings, key=lambda setting: abs(math.log(setting / _middle(optimizer.settings))))
    is_limited, ends = math.isfinite(minutes), time.monotonic() + 60 * minutes
    places = range(len(rungs))
    jobs = [(at, s) for s in order for at in places] if is_limited else [(at, s) for at in places for s in order]
    trainer = functools.lru_cache(maxsize=None if is_limited else 1)(lambda at: Trainer(rungs[at], optimizer))
    for at, setting in jobs:
        rung = rungs[at]
        done = _store.current(path, rung, optimizer)
        if any(run.setting == setting for run in done):
            continue
        if time.monotonic() + max((run.seconds for run in done), default=0) > ends:
            say(f"{rung.name} at {setting:g}: left out, since the time is over")
            continue
        run = trainer(at).run(setting)
        _store.keep(path, rung, optimizer, run)
        value = results([run], rung.is_text)
        say(f"{rung.name} {optimizer.name} at {setting:g}: {value.values[setting]:.4g} {value.unit} ({run.seconds} s)")
        yield rung


def _middle(settings: Sequence[float]) -> float:
    return sorted(settings)[len(settings) // 2]


def say(message: str) -> None:
    """Prints progress on standard error."""
    print(message, file=sys.stderr, flush=True)


def _runs(path: pathlib.Path, rung: Rung, optimizer: Optimizer) -> list[Run]:
    return [run for run in _store.current(path, rung, optimizer) if run.setting in optimizer.settings]


def _evaluated(ladder: Ladder, rung: Rung, runs: list[Run]) -> RungEvaluation:
    outcome = results(runs, rung.is_text)
    ours = next((run for run in runs if run.setting == 1), None)
    diverged = as_runs(runs).diverged
    return RungEvaluation(
        rung=rung.name,
        network=rung.network,
        axis=rung.axis,
        half=rung.half,
        is_plain=rung.options.is_plain,
        parameters=sum(math.prod(shape) for shape in rung.task.build().shapes),
        steps=rung.task.steps,
        unit=outcome.unit,
        results=outcome.values,
        diverged=[run.setting for run, is_diverged in zip(runs, diverged, strict=True) if is_diverged],
        seconds=ours and ours.seconds,
        law=verdict(runs, rung.is_text),
        baselines=_baselines(ladder, rung, ours),
    )


def _baselines(ladder: Ladder, rung: Rung, ours: Run | None) -> dict[str, BaselineResult]:
    """The baselines whose grids are complete, each at its best rate."""
    baselines = {}
    for name, runs in _store.baseline_runs(ladder, rung).items():
        if {run.setting for run in runs} != set(BASELINES[name].settings):
            continue
        best = best_run(runs, rung.is_text)
        outcome = results(runs, rung.is_text)
        baselines[name] = BaselineResult(
            rate=best.setting,
            unit=outcome.unit,
            result=outcome.values[best.setting],
            ratio=None if ours is None else ratio(ours, best, rung.is_text),
            seconds=best.seconds,
        )
    return baselines
