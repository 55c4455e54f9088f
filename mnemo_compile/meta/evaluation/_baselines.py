"""What the opponents reach on each task: measured once, kept as JSON, and bound to the code that was run."""

import ast
import functools
import hashlib
import inspect
import json
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import filelock
import numpy as np
import pydantic

from ..._cache import cache_folder
from ...errors import MnemoError

from ..tasks import _bundled, _data, _family, _networks, _procedures
from . import _opponents, _training
from ._opponents import Opponent, SCHEDULES, Setting
from ._suites import TaskConfig
from ._training import Runs, train

BASELINES = pathlib.Path(__file__).parent / "baselines"
FINALISTS = 6
"""Points of the grid, the best by the first seed, that the other seeds are run with too."""


class Point(pydantic.BaseModel):
    """A point of the grid, and the final training loss of each seed that was run; null where it is not a number."""

    rate: float
    schedule: str
    final: list[float | None]


class Result(pydantic.BaseModel):
    """What an opponent reaches on a task with its best setting, a row a seed."""

    seeds: list[int]
    rate: float
    schedule: str
    curves: list[list[float | None]]
    initial: list[float]
    held_out: list[float | None]
    accuracy: list[float | None]
    diverged: int
    """Runs of the best setting that diverged."""
    grid: list[Point]

    @property
    def final(self) -> np.ndarray:
        """Final training loss of each seed."""
        return self.runs.final

    @property
    def runs(self) -> Runs:
        """The trainings."""
        arrays = [np.array(rows, np.float64) for rows in (self.curves, self.initial, self.held_out, self.accuracy)]
        curves, initial, held_out, accuracy = arrays
        return Runs(curves, initial, np.nan_to_num(curves, nan=np.inf).max(axis=1), held_out, accuracy)


class TaskBaselines(pydantic.BaseModel):
    """All opponents on one task."""

    digest: str
    opponents: dict[str, Result]


def measure(task: TaskConfig, opponent: Opponent, seeds: Sequence[int]) -> Result:
    """Tunes the opponent on the task: every point of its grid with the first seed, the best of them with all.

    The best of those by the mean final training loss over the seeds is the result.
    """
    first = _run(task, opponent, list(opponent.grid), seeds[:1])
    order = np.argsort([_ranked(row) for row in first.final], kind="stable")[:FINALISTS]
    finalists = [opponent.grid[int(place)] for place in np.sort(order)]
    runs = _run(task, opponent, finalists, seeds)
    finals = runs.final.reshape(len(finalists), len(seeds))
    best = int(np.argmin([_ranked(row.mean()) for row in finals]))
    chosen = Runs(*(rows[best * len(seeds) : (best + 1) * len(seeds)] for rows in runs))
    grid = [
        Point(
            rate=float(f"{setting.rate:.6g}"),
            schedule=SCHEDULES[int(setting.cosine)],
            final=plain(finals[finalists.index(setting)] if setting in finalists else first.final[[place]]),
        )
        for place, setting in enumerate(opponent.grid)
    ]
    place = opponent.grid.index(finalists[best])
    return Result(
        seeds=list(seeds),
        rate=grid[place].rate,
        schedule=grid[place].schedule,
        curves=[plain(row) for row in chosen.curves],
        initial=plain(chosen.initial),
        held_out=plain(chosen.held_out),
        accuracy=plain(chosen.accuracy),
        diverged=int(chosen.diverged.sum()),
        grid=grid,
    )


def _run(task: TaskConfig, opponent: Opponent, settings: list[Setting], seeds: Sequence[int]) -> Runs:
    rows = [(setting, seed) for setting in settings for seed in seeds]
    stacked = Setting(*(np.array([getattr(s, name) for s, _ in rows], np.float32) for name in Setting._fields))
    return train(task, opponent.make, stacked, [seed for _, seed in rows])


def _ranked(value: float) -> float:
    return value if np.isfinite(value) else np.inf


def plain(values: Iterable[float]) -> list[Any]:
    """Numbers of five digits for JSON, None for what is not one."""
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values]


def path_of(suite: str) -> pathlib.Path:
    """Where the baselines of a suite that ships with the package are kept."""
    return BASELINES / f"{suite}.json"


def cached_path(suite: str) -> pathlib.Path:
    """Where what is measured besides is kept."""
    return cache_folder() / "baselines" / f"{suite}.json"


def read(path: pathlib.Path) -> dict[str, TaskBaselines]:
    """Baselines by task, none where there is no file."""
    if not path.exists():
        return {}
    try:
        return {name: TaskBaselines.model_validate(task) for name, task in json.loads(path.read_text()).items()}
    except ValueError:
        raise MnemoError(f"{path} is damaged; remove it, and it is measured again") from None


def current(suite: str, task: TaskConfig) -> dict[str, Result]:
    """What was measured on a task with today's code, by opponent."""
    digests = digest(task)
    found: dict[str, Result] = {}
    for path in (cached_path(suite), path_of(suite)):
        known = read(path).get(task.name)
        if known is not None and known.digest == digests:
            found |= known.opponents
    return found


def keep(suite: str, task: TaskConfig, results: dict[str, Result], path: pathlib.Path) -> None:
    """Adds results to a file, and drops those of other code.

    A line an opponent, so that a change of one is a change of one line.
    """
    # The lock is no file of the package.
    lock = cached_path(path.stem).with_suffix(".lock")
    for folder in (path.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(lock):
        baselines, now = read(path), digest(task)
        before = baselines.get(task.name)
        known = before.opponents if before is not None and before.digest == now else {}
        baselines[task.name] = TaskBaselines(digest=now, opponents=known | results)
        lines = []
        for name, each in sorted(baselines.items()):
            opponents = ",\n".join(
                f"   {json.dumps(opponent)}: {json.dumps(result.model_dump(), separators=(',', ':'))}"
                for opponent, result in sorted(each.opponents.items())
            )
            lines.append(f' {json.dumps(name)}: {{"digest": "{each.digest}", "opponents": {{\n{opponents}\n }}}}')
        unfinished = path.with_suffix(".part")
        unfinished.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        unfinished.replace(path)


def digest(task: TaskConfig) -> str:
    """SHA-256 of the task's configuration, but for how many seeds, and of the code that runs it.

    Of the code counts what is reached by name from the task's own classes, from the training and from the opponents,
    comments and docstrings aside; configurations do not, whose content is hashed.
    """
    family = task.build()
    parts = (family, getattr(family, "network", None), getattr(family, "data", None))
    todo = [type(part).__name__ for part in parts if part is not None]
    todo += [train.__name__, measure.__name__, *_opponents.ROOTS]
    definitions = _definitions()
    reached: set[str] = set()
    while todo:
        name = todo.pop()
        if name in definitions and name not in reached and not name.endswith("Config"):
            reached.add(name)
            todo += {node.id for node in ast.walk(definitions[name]) if isinstance(node, ast.Name)}
    hashed = hashlib.sha256(task.model_dump_json().encode())
    for name in sorted(reached):
        hashed.update(ast.dump(definitions[name]).encode())
    return hashed.hexdigest()


@functools.cache
def _definitions() -> dict[str, ast.AST]:
    """What the modules of tasks and of their training define, by name."""
    definitions: dict[str, ast.AST] = {}
    for module in (_data, _networks, _bundled, _procedures, _family, _training, _opponents, sys.modules[__name__]):
        for statement in ast.parse(inspect.getsource(module)).body:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                definitions[statement.name] = _Essence().visit(statement)
            elif isinstance(statement, ast.Assign):
                definitions |= {t.id: statement for t in statement.targets if isinstance(t, ast.Name)}
    return definitions


class _Essence(ast.NodeTransformer):
    """Leaves out what changes no result: docstrings and annotations."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)
