"""Meta-training: a run from its configuration to the frozen cell.

In a run of several processes all take every meta-step together; only the first one writes, keeps the time and decides.
"""

import contextlib
import pathlib
import sys
import time

import jax
import numpy as np

from .._interrupts import going_on_with
from ..cell import AbstractCell
from ..errors import UsageError
from ..frozen import freeze, FrozenCell, Training as TrainingRecord
from ._call import Call
from ._config import RunConfig
from ._folder import BUNDLE, holds_run, RunFolder
from ._load import load_config
from ._meta_step import MetaStep
from ._processes import explaining_lost_processes, gathered, join, leave, Place, say
from ._programs import keep_compiled_programs
from ._records import family_names
from ._start import first_cell, Start, starting_from
from ._state import TrainerState
from ._training import Interrupted, Training
from ._until import Until


def meta_train(
    preset: str,
    out: pathlib.Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    name: str | None = None,
    seed: int | None = None,
    resume: bool = False,
    overrides: tuple[str, ...] = (),
    draw: bool = False,
    place: Place | None = None,
    start: Start | None = None,
) -> FrozenCell:
    """Meta-trains a cell and freezes it into `out/bundle`.

    The weights after a given number of meta-steps depend only on the configuration and the seed, whether the run was
    given minutes or steps, and however often it was stopped and resumed. On another number of devices sums are taken in
    another order, and the weights are the same up to rounding.

    **Arguments:**

    - `preset`: the name of a preset, or the path of a TOML file.
    - `out`: the run's folder, which is created; with `resume`, the folder of the run to go on with. Of several
      processes only the first reads and writes it.
    - `minutes`, `steps`: when to stop: time spent in meta-steps, or their number. At most one of them; by default the
      preset's minutes.
    - `name`: the name of the frozen cell; by default that of the run's folder.
    - `seed`: seed of weights and tasks, instead of the preset's.
    - `overrides`: `key=value`, such as `inner.tasks=4`.
    - `draw`: whether to draw `out/curve.png` with every checkpoint, and not only at the end.
    - `place`: this process's place in a run of several, if it has not called `jax.distributed.initialize` itself.
    - `start`: a cell of the same configuration whose weights the run starts from, instead of those of a fresh one.

    **Returns:**

    The cell with the averaged weights that did best on the validation tasks.

    **Raises:** `UsageError` for a call that does not fit, `MnemoError` for a run that cannot go on, `KeyboardInterrupt`
    after an interrupted run has saved its state.
    """
    call = Call(preset, name, seed, overrides, start, place)
    config = starting_from(load_config(preset, overrides, seed, name), start)
    length = () if minutes is None else ("--minutes", f"{minutes:g}")
    length = length if steps is None else ("--steps", f"{steps}")

    def again(*options: str) -> str:
        command = call.command(out, *options, *length)
        return command if place is None else f"{command}, and the other processes likewise"

    def command_to_go_on() -> str:
        return again("--resume") if holds_run(out) else again()

    if place is not None:
        print(f"meeting the other processes at {place.coordinator} …", file=sys.stderr, flush=True)
        join(place)
    with explaining_lost_processes():
        _check_that_processes_agree(config)
        until = Until(config.minutes if minutes is None else minutes, steps)
        with going_on_with(command_to_go_on), contextlib.closing(RunFolder(out, config, resume)) as folder:
            machine = _compile(config, first_cell(config, start))
            state, seconds = _restore(machine, folder)
            try:
                state, seconds = Training(machine, folder, until, draw, state, seconds).run()
            except Interrupted as stopped:
                if place is not None:
                    leave()
                line = f"stopped and saved after meta-step {stopped}; go on with: {again('--resume')}"
                raise KeyboardInterrupt(line) from None
            length = until.option(int(state.meta_step), seconds)
            command = call._replace(name=None, seed=config.seed, place=None).command("RUN", *length)
            frozen = _freeze(machine, state, seconds, folder.name, command)
            folder.write_bundle(frozen)
    say(f"meta-trained for {int(state.meta_step)} meta-steps in {seconds / 60:.1f} min; the cell is in {out / BUNDLE}")
    return frozen


def _check_that_processes_agree(config: RunConfig) -> None:
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


def _restore(machine: MetaStep, folder: RunFolder) -> tuple[TrainerState, float]:
    """The newest checkpoint's state and the seconds spent until then, or the state before the first meta-step."""
    first = machine.init()
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), first)
    restored = folder.restore((shapes, np.zeros((), np.float32)))
    return (first, 0.0) if restored is None else (machine.placed(restored[0]), float(restored[1]))


def _freeze(machine: MetaStep, state: TrainerState, seconds: float, name: str, command: str) -> FrozenCell:
    config = machine.config
    _, figures = machine.validate(state._replace(average=state.best))
    training = TrainingRecord(
        command=command,
        preset=config.preset,
        seed=config.seed,
        meta_steps=int(state.meta_step),
        minutes=round(seconds / 60, 2),
        families=family_names(machine.loops),
        figures={
            f"{name}, {config.validation.steps} steps: {what}": float(value)
            for name, figure in zip(family_names(machine.validation_loops), figures, strict=True)
            for what, value in (("training loss", figure.training_loss), ("validation loss", figure.validation_loss))
        },
    )
    return freeze(
        machine.cell(jax.tree.map(np.asarray, state.best)),
        name=name,
        version="0.0.0",
        training=training,
    )
