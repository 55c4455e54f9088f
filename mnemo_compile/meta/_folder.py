"""A run's folder: its configuration, checkpoints, records and, at the end, the bundle."""

import contextlib
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import filelock
import numpy as np
from jaxtyping import PyTree

from .._interrupts import cleaned_up
from ..errors import MnemoError, UsageError
from ..frozen import FrozenCell, new_folder, replace_file, save, writing
from ._checkpoint import Checkpoints
from ._config import RunConfig
from ._processes import first_does, from_first, gathered
from .monitor import Monitor, plot

CONFIG = "config.json"
BUNDLE = "bundle"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"
"""The file that the process of the run has locked; the system frees it when the process is gone."""

T = TypeVar("T")
Tree = TypeVar("Tree", bound=PyTree[np.ndarray])


class RunFolder:
    """The folder of a run.

    All processes of a run call the same methods. Only the first one reads and writes, so that the others need not see
    the folder; if that fails, all of them raise.
    """

    def __init__(self, path: pathlib.Path, config: RunConfig, resume: bool):
        """Creates the folder, or with `resume` checks that it holds this run."""
        self.path = path
        self._monitor: Monitor | None = None
        with contextlib.ExitStack() as opened:
            self._first(lambda: opened.enter_context(_lock(path, resume)))
            self.name = self._first(lambda: _open(path, config, resume)) or cell_name(path)
            """The name of the cell that the run makes."""
            self._checkpoints = self._first(lambda: Checkpoints(path / CHECKPOINTS))
            self._opened = opened.pop_all()

    def restore(self, template: Tree) -> Tree | None:
        """The newest checkpoint, in the structure of `template` and with its shapes; None where there is none."""

        def read() -> Tree | None:
            if self._checkpoints is None or self._checkpoints.latest() is None:
                return None
            return self._checkpoints.restore(template)

        restored = self._first(read)
        if not gathered(np.array(restored is not None)).any():
            return None
        return from_first(template if restored is None else restored)

    def save(self, meta_step: int, state: PyTree[np.ndarray]) -> None:
        """Writes a checkpoint."""
        self._first(lambda: self._checkpoints.save(meta_step, state) if self._checkpoints else None)

    @contextlib.contextmanager
    def monitored(self, start: int) -> Iterator[None]:
        """In this context, the run after meta-step `start` is shown and recorded."""
        self._monitor = self._first(lambda: Monitor(self.path, start))
        with writing(self.path), self._monitor or contextlib.nullcontext():
            yield

    def step(self, record: Mapping[str, Any], done: float, seconds_left: float) -> None:
        """Shows and records a meta-step, and how far the run is, from 0 to 1."""
        self._first(lambda: self._monitor.step(record, done, seconds_left) if self._monitor else None)

    def validation(self, record: Mapping[str, Any]) -> None:
        """Shows and records a validation."""
        self._first(lambda: self._monitor.validation(record) if self._monitor else None)

    def draw(self) -> None:
        """Draws the curve."""
        self._first(lambda: plot(self.path))

    def write_bundle(self, frozen: FrozenCell) -> None:
        """Writes the bundle."""
        self._first(lambda: save(frozen, self.path / BUNDLE))

    def close(self) -> None:
        """Frees the resources for checkpoints, and the run for other processes."""
        with self._opened:
            if self._checkpoints is not None:
                self._checkpoints.close()

    def _first(self, action: Callable[[], T]) -> T | None:
        def act() -> T:
            with writing(self.path):
                return action()

        return first_does(act)


def holds_run(path: pathlib.Path) -> bool:
    """Whether a run was started in a folder."""
    return (path / CONFIG).is_file()


def cell_name(run: pathlib.Path) -> str:
    """The name of the cell of a run in this folder, after the folder's."""
    name = re.sub("[^a-z0-9]+", "-", run.resolve().name.lower()).strip("-")
    return (name if re.match("[a-z]", name) else f"cell-{name}")[:64].strip("-")


@contextlib.contextmanager
def _lock(path: pathlib.Path, resume: bool) -> Iterator[None]:
    """Keeps other processes from the run. Creates the folder, or with `resume` checks that it holds a run."""
    if resume and not holds_run(path):
        raise UsageError(f"there is no run in {path} to resume; leave out --resume to start one")
    if not holds_run(path) and path.is_dir() and any(each.name != LOCK for each in path.iterdir()):
        raise UsageError(f"{path} holds other files: choose an empty one, or give another --out")
    lock = filelock.FileLock(path / LOCK)
    with new_folder(path):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise MnemoError(
                f"another process is at work on the run in {path}; wait for its end, stop it, or give another --out"
            ) from None

        def release() -> None:
            if not holds_run(path):
                (path / LOCK).unlink(missing_ok=True)
            lock.release()

        with cleaned_up(release):
            if not resume and holds_run(path):
                raise UsageError(f"{path} holds a run: add --resume to go on with it, or give another --out")
            yield


def _open(path: pathlib.Path, config: RunConfig, resume: bool) -> str | None:
    """Writes the configuration, or with `resume` compares it with that of the run. Returns the name of the cell."""
    file = path / CONFIG
    if not resume:
        replace_file(file, (config.model_dump_json(indent=2) + "\n").encode())
        return config.name
    try:
        before = RunConfig.model_validate_json(file.read_bytes())
    except ValueError:
        raise MnemoError(f"{file} is damaged; start a new run in another folder") from None
    if before.fingerprint != config.fingerprint:
        raise UsageError(
            f"the run in {path} was started with another configuration or seed; resume it with the same, "
            f"or choose another --out"
        )
    return config.name or before.name
