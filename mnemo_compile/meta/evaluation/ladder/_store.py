"""Trainings of rungs, kept one by one as JSON beside what the rung computed then."""

import json
import pathlib

import pydantic

from ...._cache import cache_folder
from .._fingerprint import Fingerprint
from .._json_file import line, locked, read_records, replace
from .._store import cached_path, shipped_path
from ._optimizers import BASELINES, Optimizer
from ._rungs import LADDER, Ladder, ladders, Rung
from ._start import fingerprint
from ._training import Run


class OptimizerRuns(pydantic.BaseModel):
    """What one optimizer did on a rung."""

    identity: str
    """The optimizer's, when it was run."""
    runs: list[Run]


class RungRuns(pydantic.BaseModel):
    """What was measured on a rung."""

    digest: str
    fingerprint: Fingerprint
    optimizers: dict[str, OptimizerRuns]

    def is_of(self, rung: Rung) -> bool:
        """Whether the rung is configured and computes as when it was measured."""
        return self.digest == rung.digest and self.fingerprint.agrees_with(fingerprint(rung))


def baselines_path(ladder: Ladder, in_cache: bool = False) -> pathlib.Path:
    """Where new results of baselines are kept: in the package for a ladder that ships with it."""
    return (cached_path if in_cache or ladder.ref not in ladders() else shipped_path)(_file(ladder))


def cell_path(ladder: Ladder, digest: str) -> pathlib.Path:
    """Where the results of a cell are kept."""
    return cache_folder() / "ladder" / f"{_file(ladder)}-{digest[:16]}.json"


def _file(ladder: Ladder) -> str:
    return LADDER if ladder.name == LADDER else f"{LADDER}-{ladder.name}"


def baseline_runs(ladder: Ladder, rung: Rung) -> dict[str, list[Run]]:
    """The results of every baseline that speak of the rung as it is today, complete or not."""
    paths = (shipped_path(_file(ladder)), cached_path(_file(ladder)))
    runs = {name: [run for path in paths for run in current(path, rung, each)] for name, each in BASELINES.items()}
    return {name: list({run.setting: run for run in some}.values()) for name, some in runs.items() if some}


def current(path: pathlib.Path, rung: Rung, optimizer: Optimizer) -> list[Run]:
    """The results of an optimizer that speak of it and of the rung as they are today."""
    stored = read_records(path, RungRuns).get(rung.name)
    theirs = stored and stored.optimizers.get(optimizer.name)
    if stored is None or theirs is None or theirs.identity != optimizer.identity or not stored.is_of(rung):
        return []
    return theirs.runs


def keep(path: pathlib.Path, rung: Rung, optimizer: Optimizer, run: Run) -> None:
    """Adds one training to a file, and drops those of a rung or an optimizer that computed something else."""
    with locked(path):
        stored = read_records(path, RungRuns)
        before = stored.get(rung.name)
        others = before.optimizers if before is not None and before.is_of(rung) else {}
        runs = [each for each in current(path, rung, optimizer) if each.setting != run.setting]
        both = OptimizerRuns(identity=optimizer.identity, runs=sorted([*runs, run], key=lambda each: each.setting))
        stored[rung.name] = RungRuns(
            digest=rung.digest, fingerprint=fingerprint(rung), optimizers={**others, optimizer.name: both}
        )
        replace(path, _text(stored))


def _text(stored: dict[str, RungRuns]) -> str:
    """JSON with one line per training, so that a change of one is a change of one line."""
    rungs = []
    for name, rung in sorted(stored.items()):
        optimizers = []
        for key, each in sorted(rung.optimizers.items()):
            runs = ",\n".join(f"   {line(run)}" for run in each.runs)
            optimizers.append(
                f'  {json.dumps(key)}: {{"identity": {json.dumps(each.identity)}, "runs": [\n{runs}\n  ]}}'
            )
        head = f'"digest": "{rung.digest}", "fingerprint": {line(rung.fingerprint)}'
        rungs.append(f' {json.dumps(name)}: {{{head}, "optimizers": {{\n' + ",\n".join(optimizers) + "\n }}")
    return "{\n" + ",\n".join(rungs) + "\n}\n"
