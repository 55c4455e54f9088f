"""`mnemo meta-train`."""

import math
import pathlib

import rich_click as click

from ..errors import UsageError
from ._console import message


@click.command("meta-train")
@click.argument("preset", metavar="PRESET|CONFIG.toml")
@click.option("--out", required=True, type=click.Path(path_type=pathlib.Path), metavar="RUN", help="The run's folder.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="How long to meta-train.")
@click.option("--steps", type=click.IntRange(min=1), help="How many meta-steps to take, instead of --minutes.")
@click.option("--name", help="Name of the cell; that of the run's folder by default.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of weights and tasks.")
@click.option(
    "--from",
    "origin",
    metavar="REF",
    help="Start from the weights of this cell. It may differ in seed, prior, sample_chunks and state_dtype.",
)
@click.option("--resume", is_flag=True, help="Go on where the run in RUN stopped.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the preset. Repeatable.")
@click.option(
    "--plot",
    is_flag=True,
    help="Draw RUN/curve.png with every checkpoint and at the end, and print its path. "
    "Without --resume, a run that exists already is only drawn.",
)
@click.option(
    "--coordinator",
    metavar="HOST:PORT|auto",
    help="Address of process 0, where the processes of a run on several hosts meet. "
    "Under Slurm, under Open MPI and on a TPU pod, auto finds it, and also --processes and --process.",
)
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="How many processes the run has.")
@click.option("--process", type=click.IntRange(min=0), metavar="I", help="The number of this process, from 0.")
def meta_train(
    preset: str,
    out: pathlib.Path,
    minutes: float | None,
    steps: int | None,
    name: str | None,
    seed: int | None,
    origin: str | None,
    resume: bool,
    overrides: tuple[str, ...],
    plot: bool,
    coordinator: str | None,
    processes: int | None,
    process: int | None,
) -> None:
    """Meta-train a cell on freshly drawn tasks, and freeze it.

    RUN gets checkpoints, metrics, a curve and, at the end, the bundle. Ctrl-C saves after the meta-step, for at most
    ten seconds, and a second one ends at once; --resume goes on.

    Tasks lie on all devices. On several hosts, start this on each with the same arguments and its own --process. Only
    process 0 needs RUN.

    \b
    Example:
      mnemo meta-train tiny --out runs/first --minutes 5
      mnemo meta-train tiny --out runs/first --plot
      mnemo meta-train tiny --out runs/more --from runs/first
      mnemo meta-train tiny --out runs/two --coordinator 10.0.0.1:9876 --processes 2 --process 0
    """
    if minutes is not None and steps is not None:
        raise UsageError("--minutes and --steps both say when to stop; give one of them")
    if minutes is not None and not math.isfinite(minutes):
        raise UsageError(f"--minutes takes a finite number, not {minutes}; Ctrl-C ends a run at any time")
    for override in overrides:
        if not override.partition("=")[0].strip() or "=" not in override:
            raise UsageError(f"--set takes KEY=VALUE, not '{override}'")
    _check_place(coordinator, processes, process)
    if plot and not resume and _draws(out, coordinator):
        return
    from ..meta import cell_name, meta_train

    if name is not None or not resume:
        _check_name(name or cell_name(out))
    place = None
    if coordinator is not None:
        from ..meta import Place

        place = Place(coordinator, processes, process)
    start = None
    if origin is not None:
        from .._refs import load
        from ..meta import Start

        start = Start(origin, load(origin))
    how = {"minutes": minutes, "steps": steps, "name": name, "seed": seed, "overrides": overrides, "start": start}
    meta_train(preset, out, **how, resume=resume, draw=plot, place=place)
    if plot:
        import jax

        if jax.process_index() == 0:
            print(out / "curve.png")


def _check_name(name: str) -> None:
    """Refuses the name of a model that ships, which would be taken for the cell of the run."""
    from ..zoo import is_reference, open_zoo

    if not is_reference(name) or "@" in name:
        raise UsageError(f"--name takes lower-case letters, digits and single hyphens, such as my-cell, not '{name}'")
    if name in open_zoo().index.names:
        raise UsageError(f"{name} is the name of a model that ships with this package; give another --name")


def _draws(out: pathlib.Path, coordinator: str | None) -> bool:
    """Draws the run in the folder. Whether there is one."""
    from ..meta import holds_run, plot

    if not holds_run(out):
        return False
    if coordinator is not None:
        raise UsageError(f"one process draws the run in {out}; leave out --coordinator, or go on with --resume")
    print(plot(out))
    message(f"drew the run in {out} and trained nothing; add --resume to go on with it")
    return True


def _check_place(coordinator: str | None, processes: int | None, process: int | None) -> None:
    has_numbers = processes is not None or process is not None
    if coordinator is None:
        if has_numbers:
            raise UsageError("--processes and --process need --coordinator HOST:PORT, where the processes meet")
    elif coordinator == "auto":
        if has_numbers:
            raise UsageError("--coordinator auto finds --processes and --process itself; leave them out")
    else:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UsageError(f"--coordinator takes HOST:PORT or auto, not '{coordinator}'")
        if processes is None or process is None:
            raise UsageError("--coordinator HOST:PORT needs --processes N and --process I")
        if process >= processes:
            raise UsageError(f"--process {process} is not one of {processes} processes, which count from 0")
