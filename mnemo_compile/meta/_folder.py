"""A run's folder: its configuration, checkpoints, records and, at the end, the bundle."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from jaxtyping import PyTree

from ..errors import MnemoError, UsageError
from ..frozen import FrozenCell, save, writing
from ._checkpoint import Checkpoints
from ._config import RunConfig
from ._processes import first_does, from_first, gathered
from .monitor import Monitor, plot

CONFIG = "config.json"
BUNDLE = "bundle"
CHECKPOINTS = "checkpoints"

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
        self._first(lambda: _open(path, config, resume))
        self._checkpoints = self._first(lambda: Checkpoints(path / CHECKPOINTS))
        self._monitor: Monitor | None = None

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
        """Frees the resources for checkpoints."""
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


def _open(path: pathlib.Path, config: RunConfig, resume: bool) -> None:
    file = path / CONFIG
    if resume:
        if not holds_run(path):
            raise UsageError(f"there is no run in {path} to resume; leave out --resume to start one")
        try:
            before = RunConfig.model_validate_json(file.read_bytes())
        except ValueError:
            raise MnemoError(f"{file} is damaged; start a new run in another folder") from None
        if before.fingerprint != config.fingerprint:
            raise UsageError(
                f"the run in {path} was started with another configuration or seed; resume it with the same, "
                f"or choose another --out"
            )
        return
    if path.is_dir() and any(path.iterdir()):
        what = "a run: add --resume to go on with it" if holds_run(path) else "other files: choose an empty one"
        raise UsageError(f"{path} holds {what}, or give another --out")
    path.mkdir(parents=True, exist_ok=True)
    file.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
