"""A run: meta-steps until the time or the number is reached, with checkpoints that it goes on from exactly."""

import pathlib
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from mnemo_compile._cache import cache_folder
from mnemo_compile.artifact import freeze, FrozenCell, save, Training, writing
from mnemo_compile.errors import MnemoError, UsageError

from ._checkpoint import Checkpoints
from ._config import load_config, RunConfig
from ._meta_step import MetaStep, TrainerState
from ._monitor import Monitor, plot

CONFIG = "config.json"
BUNDLE = "bundle"
CHECKPOINTS = "checkpoints"
SKIPPED_AT_MOST = 10
"""Non-finite meta-gradients in a row after which a run stops."""


def meta_train(
    preset: str,
    out: pathlib.Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    overrides: tuple[str, ...] = (),
) -> FrozenCell:
    """Meta-trains a cell and freezes it into `out/bundle`.

    The weights after a given number of meta-steps depend on the configuration and the seed alone, whether the run was
    given minutes or steps, and however often it was stopped and resumed.

    **Arguments:**

    - `preset`: the name of a preset, or the path of a TOML file.
    - `out`: the run's folder, created; with `resume`, that of the run to go on with.
    - `minutes`, `steps`: when to stop: time spent in meta-steps, or their number. At most one; with none the
      preset's minutes.
    - `seed`: seed of weights and tasks, instead of the preset's.
    - `overrides`: `key=value`, such as `inner.tasks=4`.

    **Returns:**

    The cell with the average of the weights that did best on the validation tasks.

    **Raises:** `UsageError` for a call that does not fit, `MnemoError` for a run that cannot go on, `KeyboardInterrupt`
    after an interrupted run has saved its state.
    """
    config = load_config(preset, overrides, seed)
    _open_run(out, config, resume)
    _say(f"compiling {len(config.families)} families for {jax.default_backend()} …")
    started = time.monotonic()
    _keep_compiled_programs()
    machine = MetaStep(config)
    _say(f"compiled in {time.monotonic() - started:.0f} s")
    checkpoints = Checkpoints(out / CHECKPOINTS)
    try:
        template = (machine.init(), jnp.zeros(()))
        state, seconds = checkpoints.restore(template) if checkpoints.latest() is not None else template
        if minutes is None and steps is None:
            minutes = config.minutes
        state, seconds = _train(machine, state, float(seconds), out, checkpoints, minutes, steps, preset)
    finally:
        checkpoints.close()
    frozen = _freeze(machine, state, seconds, preset, minutes, steps, overrides)
    with writing(out):
        save(frozen, out / BUNDLE)
    _say(f"meta-trained for {int(state.meta_step)} meta-steps in {seconds / 60:.1f} min; the cell is in {out / BUNDLE}")
    return frozen


def _keep_compiled_programs() -> None:
    """A second run of a configuration starts in seconds."""
    if getattr(jax.config, "jax_compilation_cache_dir") is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))


def _open_run(out: pathlib.Path, config: RunConfig, resume: bool) -> None:
    """Makes the run's folder, or checks that the run in it is this one."""
    path = out / CONFIG
    if resume:
        if not path.is_file():
            raise UsageError(f"there is no run in {out} to resume; leave out --resume to start one")
        try:
            before = RunConfig.model_validate_json(path.read_bytes())
        except ValueError:
            raise MnemoError(f"{path} is damaged; start a new run in another folder") from None
        if before.fingerprint != config.fingerprint:
            raise UsageError(
                f"the run in {out} was started with another configuration or seed; resume it with the same, "
                f"or choose another --out"
            )
        return
    if out.is_dir() and any(out.iterdir()):
        what = "a run: add --resume to go on with it" if path.is_file() else "other files: choose an empty one"
        raise UsageError(f"{out} holds {what}, or give another --out")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _train(
    machine: MetaStep,
    state: TrainerState,
    seconds: float,
    out: pathlib.Path,
    checkpoints: Checkpoints,
    minutes: float | None,
    steps: int | None,
    preset: str,
) -> tuple[TrainerState, float]:
    config = machine.config
    families = [problem.family.name for problem in machine.problems]
    inner_steps = len(families) * config.inner.tasks * config.inner.truncation
    budget = minutes * 60 if minutes is not None else float("inf")
    last = steps if steps is not None else sys.maxsize
    saved = time.monotonic()

    def checkpoint() -> None:
        with writing(out):
            checkpoints.save(int(state.meta_step), (state, jnp.array(seconds)))
            plot(out)

    with writing(out), Monitor(out, int(state.meta_step)) as monitor, _interruptible() as interrupted:
        while int(state.meta_step) < last and seconds < budget and not interrupted:
            if int(state.meta_step) == 0:
                state = _validate(machine, state, monitor)
            began = time.monotonic()
            state, objectives, norm = machine.step(state)
            objectives = [float(objective) for objective in objectives]
            meta_step = int(state.meta_step)
            if meta_step % config.outer.validate_every == 0:
                state = _validate(machine, state, monitor)
            spent = time.monotonic() - began
            seconds += spent
            done = meta_step / last if steps is not None else seconds / budget
            record = {
                "meta_step": meta_step,
                "objective": dict(zip(families, objectives, strict=True)),
                "gradient_norm": float(norm),
                "resets": int(state.resets),
                "skipped": int(state.skipped),
                "inner_steps_per_second": inner_steps / spent,
                "seconds": seconds,
            }
            left = (last - meta_step) * spent if steps is not None else budget - seconds
            monitor.step(record, done, left)
            if int(state.skipped_in_a_row) >= SKIPPED_AT_MOST:
                raise MnemoError(
                    f"the meta-gradient was not finite {SKIPPED_AT_MOST} times in a row, up to meta-step {meta_step}; "
                    f"lower outer.learning_rate or inner.truncation in a new run"
                )
            if time.monotonic() - saved >= config.checkpoint_seconds:
                checkpoint()
                saved = time.monotonic()
        if not interrupted:
            state = _validate(machine, state, monitor)
    checkpoint()
    if interrupted:
        _say(
            f"saved after meta-step {int(state.meta_step)}; go on with: mnemo meta-train {preset} --out {out} --resume"
        )
        raise KeyboardInterrupt
    return state, seconds


def _validate(machine: MetaStep, state: TrainerState, monitor: Monitor) -> TrainerState:
    state, figures = machine.validate(state)
    names = [problem.family.name for problem in machine.validation_problems]
    record: dict[str, Any] = {"meta_step": int(state.meta_step)}
    record["validation"] = {name: float(f.objective) for name, f in zip(names, figures, strict=True)}
    record["validation_final"] = {name: float(f.final) for name, f in zip(names, figures, strict=True)}
    record["validation_held_out"] = {name: float(f.held_out) for name, f in zip(names, figures, strict=True)}
    monitor.validation(record)
    return state


def _freeze(
    machine: MetaStep,
    state: TrainerState,
    seconds: float,
    preset: str,
    minutes: float | None,
    steps: int | None,
    overrides: tuple[str, ...],
) -> FrozenCell:
    config = machine.config
    _, figures = machine.validate(state._replace(average=state.best))
    until = f"--minutes {minutes:g}" if minutes is not None else f"--steps {steps}"
    sets = "".join(f" --set {override}" for override in overrides)
    training = Training(
        command=f"mnemo meta-train {preset} --out RUN {until} --seed {config.seed}{sets}",
        preset=config.preset,
        seed=config.seed,
        meta_steps=int(state.meta_step),
        minutes=round(seconds / 60, 2),
        families=tuple(problem.family.name for problem in machine.problems),
        figures={
            f"{problem.family.name}, {config.validation.steps} steps: {what}": float(value)
            for problem, figure in zip(machine.validation_problems, figures, strict=True)
            for what, value in (("final training loss", figure.final), ("held-out loss", figure.held_out))
        },
    )
    return freeze(
        machine.cell(state.best),
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


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
