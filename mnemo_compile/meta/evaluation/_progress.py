"""What an unfinished evaluation has trained so far, kept as JSON for the next call with the same arguments."""

import json
from collections.abc import Sequence

import numpy as np
import pydantic

from ..._cache import cache_folder
from ...frozen import FrozenCell
from ._cell_optimizer import identity_of
from ._fingerprint import Fingerprint, fingerprint
from ._json_file import line, locked, read_records, replace
from ._store import digest
from ._suites import Suite, TaskConfig
from ._training import Runs


class _TaskRuns(pydantic.BaseModel):
    """The trainings of one task."""

    digest: str
    """Of the task."""
    fingerprint: Fingerprint
    cell: str
    """The identity of the cell."""
    curves: list[list[float]]
    others: dict[str, list[float]]
    """The other columns of the runs, one number per seed."""


class Progress:
    """The finished tasks of one cell on one suite, until the evaluation is over."""

    def __init__(self, suite: Suite, frozen: FrozenCell):
        self.path = cache_folder() / "evaluations" / f"{suite.name}-{frozen.digest[:16]}.json"
        self._cell = identity_of(frozen.cell(), frozen.digest)

    def read(self, task: TaskConfig, seeds: int) -> Runs | None:
        """The runs of a task, if it was finished with this cell and this number of seeds."""
        kept = read_records(self.path, _TaskRuns).get(task.name)
        if kept is None or (kept.digest, kept.cell, len(kept.curves)) != (digest(task), self._cell, seeds):
            return None
        if not kept.fingerprint.agrees_with(fingerprint(task)):
            return None
        return Runs(np.array(kept.curves), **{name: np.array(column) for name, column in kept.others.items()})

    def keep(self, task: TaskConfig, runs: Runs) -> None:
        """Adds a finished task."""
        curves, *others = (column.tolist() for column in runs)
        kept = _TaskRuns(
            digest=digest(task),
            fingerprint=fingerprint(task),
            cell=self._cell,
            curves=curves,
            others=dict(zip(Runs._fields[1:], others, strict=True)),
        )
        with locked(self.path):
            replace(self.path, _text(read_records(self.path, _TaskRuns) | {task.name: kept}))

    def forget(self, tasks: Sequence[TaskConfig]) -> None:
        """Removes the tasks of an evaluation that is over."""
        with locked(self.path):
            records = read_records(self.path, _TaskRuns)
            names = {task.name for task in tasks}
            others = {name: record for name, record in records.items() if name not in names}
            if others:
                replace(self.path, _text(others))
            else:
                self.path.unlink(missing_ok=True)


def _text(records: dict[str, _TaskRuns]) -> str:
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {line(record)}" for name, record in records.items()) + "\n}\n"
