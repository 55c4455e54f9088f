"""Results of the baselines, measured once and kept as JSON beside what the task computed then."""

import hashlib
import json
import pathlib

import pydantic

from ..._cache import cache_folder
from ._baselines import BASELINES
from ._fingerprint import Fingerprint, fingerprint
from ._json_file import line, locked, read_records, replace
from ._suites import TaskConfig
from ._tuning import Result

SHIPPED = pathlib.Path(__file__).parent / "baselines"


class TaskResults(pydantic.BaseModel):
    """The results of all baselines on one task."""

    digest: str
    """SHA-256 of the task's configuration, without the number of seeds."""
    fingerprint: Fingerprint
    baselines: dict[str, Result]

    def is_of(self, task: TaskConfig) -> bool:
        """Whether the task is configured and computes as when the baselines were run."""
        return self.digest == digest(task) and self.fingerprint.agrees_with(fingerprint(task))


def digest(task: TaskConfig) -> str:
    """SHA-256 of the task's configuration, without the number of seeds."""
    return hashlib.sha256(task.model_dump_json().encode()).hexdigest()


def shipped_path(suite: str) -> pathlib.Path:
    """Where the baselines of a suite that ships with the package are kept."""
    return SHIPPED / f"{suite}.json"


def cached_path(suite: str) -> pathlib.Path:
    """Where other baselines are kept: those measured on this machine."""
    return cache_folder() / "baselines" / f"{suite}.json"


def read(path: pathlib.Path) -> dict[str, TaskResults]:
    """The results in a file, by task; none where there is no file."""
    return read_records(path, TaskResults)


def current(suite: str, task: TaskConfig) -> dict[str, Result]:
    """The results that speak of the task as it is today, by baseline. Those measured here come first."""
    results: dict[str, Result] = {}
    for path in (shipped_path(suite), cached_path(suite)):
        stored = read(path).get(task.name)
        if stored is not None and stored.is_of(task):
            results |= stored.baselines
    return {name: result for name, result in results.items() if name in BASELINES and result.is_of(BASELINES[name])}


def keep(suite: str, task: TaskConfig, results: dict[str, Result], path: pathlib.Path) -> None:
    """Adds results to a file, and drops those of a task that computed something else."""
    with locked(path):
        stored = read(path)
        before = stored.get(task.name)
        others = before.baselines if before is not None and before.is_of(task) else {}
        stored[task.name] = TaskResults(digest=digest(task), fingerprint=fingerprint(task), baselines=others | results)
        replace(path, _text(stored))


def _text(stored: dict[str, TaskResults]) -> str:
    """JSON with one line per baseline, so that a change of one is a change of one line."""
    tasks = []
    for name, task in sorted(stored.items()):
        baselines = ",\n".join(f"   {json.dumps(key)}: {line(each)}" for key, each in sorted(task.baselines.items()))
        head = f'{{"digest": "{task.digest}", "fingerprint": {line(task.fingerprint)}, "baselines": {{'
        tasks.append(f" {json.dumps(name)}: {head}\n{baselines}\n }}}}")
    return "{\n" + ",\n".join(tasks) + "\n}\n"
