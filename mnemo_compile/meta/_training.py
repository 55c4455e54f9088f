"""The outer loop of a run: meta-steps until it is done, with validations and checkpoints."""

import time
from typing import Any

import numpy as np

from .._interrupts import interruptible
from ..errors import MnemoError
from ._folder import RunFolder
from ._meta_step import MetaStep
from ._processes import from_first, gathered
from ._records import family_names, validation_record
from ._sharding import fetch
from ._state import TrainerState
from ._until import Until
from ._validation import Validation

SKIPPED_AT_MOST = 10
"""Non-finite meta-gradients in a row after which a run stops."""

GO_ON, SAVE, STOP = range(3)
"""What all processes do next; the first one decides."""


class Interrupted(Exception):
    """A signal stopped the run after this meta-step, and its state is saved."""


class Training:
    """A run while it goes on."""

    def __init__(
        self, machine: MetaStep, folder: RunFolder, until: Until, draw: bool, state: TrainerState, seconds: float
    ):
        """Goes on from a state, before which `seconds` were spent. `draw` draws the curve with every checkpoint."""
        self._machine, self._folder, self._until, self._draw = machine, folder, until, draw
        self.state, self.seconds = state, seconds
        self._start, self._before = self.meta_step, seconds
        self._saved = time.monotonic()

    @property
    def meta_step(self) -> int:
        """How many meta-steps were taken."""
        return int(self.state.meta_step)

    def run(self) -> tuple[TrainerState, float]:
        """The state at the end, and the seconds that were spent. Raises `Interrupted` after a signal."""
        with self._folder.monitored(self._start), interruptible() as received:
            order, interrupted = self._decide(received)
            while order != STOP and not interrupted:
                self._take_meta_step()
                order, interrupted = self._decide(received)
                if order == SAVE and not interrupted:
                    self._save()
                    if self._draw:
                        self._folder.draw()
            # Before the last validation, which a run that is made longer later would not have had.
            self._save()
            if not interrupted and self.meta_step % self._machine.config.outer.validate_every:
                self._validate()
        # A run that was stopped before its first meta-step has no records.
        if self.meta_step:
            self._folder.draw()
        if interrupted:
            raise Interrupted(self.meta_step)
        # The first process's clock counts.
        return self.state, float(from_first(np.array(self.seconds)))

    def _decide(self, received: list[int]) -> tuple[int, bool]:
        """What to do next, and whether any process was interrupted."""
        order = STOP if self._until.done(self.meta_step, self.seconds) >= 1 else GO_ON
        if order == GO_ON and time.monotonic() - self._saved >= self._machine.config.checkpoint_seconds:
            order = SAVE
        orders = gathered(np.array([order, len(received)]))
        return int(orders[0, 0]), bool(orders[:, 1].any())

    def _save(self) -> None:
        self._folder.save(self.meta_step, (fetch(self.state), np.array(self.seconds, np.float32)))
        self._saved = time.monotonic()

    def _take_meta_step(self) -> None:
        if self.meta_step == 0:
            self._validate()
        began = time.monotonic()
        self.state, objectives, norm = self._machine.step(self.state)
        objectives = [float(objective) for objective in objectives]
        # Reading the meta-step waits for the device.
        meta_step, stepped = self.meta_step, time.monotonic() - began
        if meta_step % self._machine.config.outer.validate_every == 0:
            self._validate()
        self.seconds += time.monotonic() - began
        record = self._record(objectives, float(norm), stepped)
        left = self._until.seconds_left(meta_step, self.seconds, self._start, self._before)
        self._folder.step(record, self._until.done(meta_step, self.seconds), left)
        if int(self.state.skipped_in_a_row) >= SKIPPED_AT_MOST:
            raise MnemoError(
                f"the meta-gradient was not finite {SKIPPED_AT_MOST} times in a row, up to meta-step {meta_step}; "
                f"lower outer.learning_rate or inner.truncation in a new run"
            )

    def _record(self, objectives: list[float], norm: float, stepped: float) -> dict[str, Any]:
        inner, estimator = self._machine.config.inner, self._machine.config.estimator
        truncations = inner.truncations if estimator.kind == "evolution" else 1
        inner_steps = len(objectives) * inner.tasks * inner.truncation * truncations
        return {
            "meta_step": self.meta_step,
            # The families that take part are the first ones.
            "objective": dict(zip(family_names(self._machine.loops), objectives, strict=False)),
            "gradient_norm": norm,
            "resets": int(self.state.resets),
            "skipped": int(self.state.skipped),
            "inner_steps_per_second": inner_steps / stepped,
            "seconds": self.seconds,
        }

    def _validate(self) -> None:
        self.state, figures = self._machine.validate(self.state)
        names = family_names(self._machine.validation_loops)
        numbers = [Validation(*map(float, figure)) for figure in figures]
        self._folder.validation(validation_record(self.meta_step, names, numbers))
