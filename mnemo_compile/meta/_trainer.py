"""A run: meta-steps until the time or the number is reached, with checkpoints that it goes on from exactly.

In a run of several processes all take every meta-step together; the first alone writes, keeps the time and decides.
"""

import contextlib
import pathlib
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from ..frozen import freeze, FrozenCell, Training
from ..cell import AbstractCell
from ..errors import MnemoError, UsageError

from ._config import load_config, RunConfig
from ._folder import BUNDLE, RunFolder
from ._meta_step import MetaStep, TrainerState, Validation, validation_score
from ._processes import from_first, gathered, join, losing_no_one, Place, say
from ._programs import keep_compiled_programs
from ._sharding import fetch
from ._start import first_cell, Start, starting_from
from ._unroll import Problem

SKIPPED_AT_MOST = 10
"""Non-finite meta-gradients in a row after which a run stops."""


OVERRUN = 0.1
"""Share of its time that a run may go beyond it, by its last meta-step and validation, and still be told by it."""


class Until(NamedTuple):
    """When a run stops: after so many minutes in meta-steps, or so many meta-steps."""

    minutes: float
    steps: int | None
    """Instead of minutes, where it is given."""

    def done(self, meta_step: int, seconds: float) -> float:
        """How far the run is, from 0 to 1."""
        return seconds / (60 * self.minutes) if self.steps is None else meta_step / self.steps

    def seconds_left(self, meta_step: int, seconds: float, start: int, before: float) -> float:
        """How long the run will take yet, at its pace since meta-step `start` and second `before`."""
        if self.steps is None:
            return 60 * self.minutes - seconds
        return (self.steps - meta_step) * (seconds - before) / (meta_step - start)

    def option(self, meta_step: int, seconds: float) -> tuple[str, str]:
        """As an option of the command line that makes a run of so many meta-steps, which took so long.

        One that went on for longer, and was resumed with less than it had, is told by its meta-steps.
        """
        if self.done(meta_step, seconds) > 1 + OVERRUN:
            return "--steps", f"{meta_step}"
        return ("--minutes", f"{self.minutes:g}") if self.steps is None else ("--steps", f"{self.steps}")


def meta_train(
    preset: str,
    out: pathlib.Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    overrides: tuple[str, ...] = (),
    draw: bool = False,
    place: Place | None = None,
    start: Start | None = None,
) -> FrozenCell:
    """Meta-trains a cell and freezes it into `out/bundle`.

    The weights after a given number of meta-steps depend on the configuration and the seed alone, whether the run was
    given minutes or steps, and however often it was stopped and resumed. On another number of devices sums are taken in
    another order, and the weights are the same up to rounding.

    **Arguments:**

    - `preset`: the name of a preset, or the path of a TOML file.
    - `out`: the run's folder, created; with `resume`, that of the run to go on with. Of several processes the first
      alone reads and writes it.
    - `minutes`, `steps`: when to stop: time spent in meta-steps, or their number. At most one; with none the
      preset's minutes.
    - `seed`: seed of weights and tasks, instead of the preset's.
    - `overrides`: `key=value`, such as `inner.tasks=4`.
    - `draw`: whether to draw `out/curve.png` with every checkpoint, and not only at the end.
    - `place`: of this process, in a run of several that has not called `jax.distributed.initialize` itself.
    - `start`: a cell of the same configuration whose weights the run starts from, instead of those of a fresh one.

    **Returns:**

    The cell with the average of the weights that did best on the validation tasks.

    **Raises:** `UsageError` for a call that does not fit, `MnemoError` for a run that cannot go on, `KeyboardInterrupt`
    after an interrupted run has saved its state.
    """
    config = starting_from(load_config(preset, overrides, seed), start)
    if place is not None:
        print(f"meeting the other processes at {place.coordinator} …", file=sys.stderr, flush=True)
        join(place)
    with losing_no_one():
        _agree(config)
        until = Until(config.minutes if minutes is None else minutes, steps)
        with contextlib.closing(RunFolder(out, config, resume)) as folder:
            machine = _compile(config, first_cell(config, start))
            state, seconds = _restore(machine, folder)
            try:
                state, seconds = _train(machine, state, seconds, folder, until, draw)
            except _Interrupted as stopped:
                length = () if minutes is None else ("--minutes", f"{minutes:g}")
                length = length if steps is None else ("--steps", f"{steps}")
                again = _command(preset, out, ("--resume", *length), seed, overrides, start, place)
                if place is not None:
                    again += ", and the other processes likewise"
                say(f"saved after meta-step {stopped}; go on with: {again}")
                raise KeyboardInterrupt from None
            frozen = _freeze(machine, state, seconds, preset, until, overrides, start)
            folder.keep(frozen)
    say(f"meta-trained for {int(state.meta_step)} meta-steps in {seconds / 60:.1f} min; the cell is in {out / BUNDLE}")
    return frozen


def _agree(config: RunConfig) -> None:
    """Refuses processes that would each take meta-steps of another run."""
    if jax.process_count() > 1:
        fingerprints = gathered(np.frombuffer(config.fingerprint.encode(), np.uint8))
        if (fingerprints != fingerprints[0]).any():
            raise UsageError(
                "the processes were started with different configurations or seeds; start all with the same arguments"
            )


def _compile(config: RunConfig, cell: AbstractCell) -> MetaStep:
    say(f"compiling {len(config.families)} families for {jax.default_backend()} …")
    started = time.monotonic()
    keep_compiled_programs()
    machine = MetaStep(config, cell)
    say(f"compiled in {time.monotonic() - started:.0f} s")
    if jax.device_count() > 1:
        used, unused = machine.mesh.size, jax.device_count() - machine.mesh.size
        hint = f"; {unused} more do not divide them: choose another inner.tasks to use all" if unused else ""
        say(f"the {config.inner.tasks} tasks of a family lie on {used} devices{hint}")
    return machine


def _command(
    preset: str,
    out: pathlib.Path | str,
    how: tuple[str, ...],
    seed: int | None,
    overrides: tuple[str, ...],
    start: Start | None,
    place: Place | None = None,
) -> str:
    """The command line that makes a run, or goes on with it."""
    parts = ["mnemo", "meta-train", preset, "--out", str(out), *how]
    parts += [] if seed is None else ["--seed", str(seed)]
    parts += [part for override in overrides for part in ("--set", override)]
    parts += [] if start is None else ["--from", start.ref]
    parts += [] if place is None else place.options
    return shlex.join(parts)


def _restore(machine: MetaStep, folder: RunFolder) -> tuple[TrainerState, float]:
    """The newest checkpoint's state, or that before the first meta-step, and the seconds spent until then."""
    first = machine.init()
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), first)
    restored = folder.restore((shapes, np.zeros((), np.float32)))
    return (first, 0.0) if restored is None else (machine.placed(restored[0]), float(restored[1]))


class _Interrupted(Exception):
    """The run was stopped by a signal, after the meta-step that this says, and has saved its state."""


GO_ON, SAVE, STOP = range(3)
"""What all processes do next, as the first one decides."""


def _train(
    machine: MetaStep, state: TrainerState, seconds: float, folder: RunFolder, until: Until, draw: bool
) -> tuple[TrainerState, float]:
    config = machine.config
    families = _names(machine.problems)
    truncations = config.inner.truncations if config.estimator.kind == "evolution" else 1
    inner_steps = config.inner.tasks * config.inner.truncation * truncations
    start, before = int(state.meta_step), seconds
    saved = time.monotonic()

    def save() -> None:
        folder.save(int(state.meta_step), (fetch(state), np.array(seconds, np.float32)))

    def decide(received: list[int]) -> tuple[int, bool]:
        """What to do next, and whether any process was told to stop."""
        order = STOP if until.done(int(state.meta_step), seconds) >= 1 else GO_ON
        if order == GO_ON and time.monotonic() - saved >= config.checkpoint_seconds:
            order = SAVE
        orders = gathered(np.array([order, len(received)]))
        return int(orders[0, 0]), bool(orders[:, 1].any())

    with folder.monitored(start), _interruptible() as received:
        order, interrupted = decide(received)
        while order != STOP and not interrupted:
            if int(state.meta_step) == 0:
                state = _validate(machine, state, folder)
            began = time.monotonic()
            state, objectives, norm = machine.step(state)
            objectives = [float(objective) for objective in objectives]
            meta_step, stepped = int(state.meta_step), time.monotonic() - began
            if meta_step % config.outer.validate_every == 0:
                state = _validate(machine, state, folder)
            seconds += time.monotonic() - began
            record = {
                "meta_step": meta_step,
                # The first of the families are those that take part.
                "objective": dict(zip(families, objectives, strict=False)),
                "gradient_norm": float(norm),
                "resets": int(state.resets),
                "skipped": int(state.skipped),
                "inner_steps_per_second": len(objectives) * inner_steps / stepped,
                "seconds": seconds,
            }
            folder.step(record, until.done(meta_step, seconds), until.seconds_left(meta_step, seconds, start, before))
            if int(state.skipped_in_a_row) >= SKIPPED_AT_MOST:
                raise MnemoError(
                    f"the meta-gradient was not finite {SKIPPED_AT_MOST} times in a row, up to meta-step {meta_step}; "
                    f"lower outer.learning_rate or inner.truncation in a new run"
                )
            order, interrupted = decide(received)
            if order == SAVE and not interrupted:
                save()
                saved = time.monotonic()
                if draw:
                    folder.draw()
        # Before the last validation, which a run that is made longer later would not have had.
        save()
        if not interrupted and int(state.meta_step) % config.outer.validate_every:
            state = _validate(machine, state, folder)
    # A run that was stopped before its first meta-step has no records.
    if int(state.meta_step):
        folder.draw()
    if interrupted:
        raise _Interrupted(int(state.meta_step))
    # The first process's clock counts.
    return state, float(from_first(np.array(seconds)))


def _names(problems: Sequence[Problem]) -> tuple[str, ...]:
    """Of the families; those that differ in what a name leaves out have a number each."""
    found = [problem.family.name for problem in problems]
    numbers = [found[: place + 1].count(name) for place, name in enumerate(found)]
    return tuple(
        name if found.count(name) == 1 else f"{name} #{number}" for name, number in zip(found, numbers, strict=True)
    )


def _validate(machine: MetaStep, state: TrainerState, folder: RunFolder) -> TrainerState:
    state, figures = machine.validate(state)
    families = _names(machine.validation_problems)
    figures = [Validation(*map(float, figure)) for figure in figures]
    record: dict[str, Any] = {"meta_step": int(state.meta_step), "validation_score": float(validation_score(figures))}
    record["validation"] = {name: f.objective for name, f in zip(families, figures, strict=True)}
    record["validation_final"] = {name: f.final for name, f in zip(families, figures, strict=True)}
    record["validation_held_out"] = {name: f.held_out for name, f in zip(families, figures, strict=True)}
    folder.validation(record)
    return state


def _freeze(
    machine: MetaStep,
    state: TrainerState,
    seconds: float,
    preset: str,
    until: Until,
    overrides: tuple[str, ...],
    start: Start | None,
) -> FrozenCell:
    config = machine.config
    _, figures = machine.validate(state._replace(average=state.best))
    length = until.option(int(state.meta_step), seconds)
    training = Training(
        command=_command(preset, "RUN", length, config.seed, overrides, start),
        preset=config.preset,
        seed=config.seed,
        meta_steps=int(state.meta_step),
        minutes=round(seconds / 60, 2),
        families=_names(machine.problems),
        figures={
            f"{name}, {config.validation.steps} steps: {what}": float(value)
            for name, figure in zip(_names(machine.validation_problems), figures, strict=True)
            for what, value in (("final training loss", figure.final), ("held-out loss", figure.held_out))
        },
    )
    return freeze(
        machine.cell(jax.tree.map(np.asarray, state.best)),
        name=f"{config.cell.kind}-{config.preset}",
        version="0.0.0",
        training=training,
    )


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM is put into; a second one ends the process as usual."""
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        received.append(number)
        for name in before:
            signal.signal(name, before[name])

    try:
        before = {name: signal.signal(name, receive) for name in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not on the main thread, where no signal arrives either
        before = {}
    try:
        yield received
    finally:
        for name in before:
            signal.signal(name, before[name])
