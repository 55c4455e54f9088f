"""One run, or several with a table and a plot."""

import math
import pathlib
from collections.abc import Sequence

import accelerate
import click
import numpy as np
import rich.console
import rich.table

from ._loop import train
from ._optimizers import Choice, choices
from ._options import Settings
from ._plots import draw
from ._run import finished, Result, write_json
from ._task import Task


def perform(task: Task, settings: Settings) -> None:
    """What a recipe does: trains once, or once per optimizer, rate and seed of a comparison."""
    if settings.compare:
        compare(task, settings)
    else:
        train_once(task, settings)


def train_once(task: Task, settings: Settings) -> None:
    """Trains, and leaves metrics, a plot and the network in the folder of results."""
    (choice, *more) = choices(settings.optimizer)
    if more:
        raise click.UsageError(f"--optimizer {settings.optimizer} has several rates; pass them to --compare.")
    out = settings.out
    result = finished(out, settings, choice, settings.seed) if settings.resume else None
    result = result or train(task, settings, choice, settings.seed, out, resume=settings.resume)
    if accelerate.PartialState().is_main_process:
        draw({result.label: [out]}, out / "curve.png")
        click.echo(f"{_number(result.loss)} validation loss, {result.accuracy:.1%} accuracy: {out}")


def compare(task: Task, settings: Settings) -> None:
    """Trains what has not ended yet, and draws all of it. What a run leaves is metrics, and no weights."""
    results: dict[str, list[Result]] = {}
    folders: dict[str, list[pathlib.Path]] = {}
    everything = [choice for text in settings.compare for choice in choices(text)]
    for seed in range(settings.seed, settings.seed + settings.seeds):
        for choice in everything:
            folder = settings.out / f"{_name(choice)}-seed-{seed}"
            result = finished(folder, settings, choice, seed)
            result = result or train(task, settings, choice, seed, folder, keep=False)
            results.setdefault(choice.label, []).append(result)
            folders.setdefault(choice.label, []).append(folder)
    if accelerate.PartialState().is_main_process:
        summary = [summarise(label, runs) for label, runs in results.items()]
        write_json(settings.out / "comparison.json", summary)
        draw(folders, settings.out / "comparison.png")
        show(summary, settings.out)


def summarise(label: str, runs: Sequence[Result]) -> dict[str, str | float | None]:
    """Mean and standard deviation over seeds. A run that ended in no number makes the mean none."""
    losses = [math.inf if run.loss is None else run.loss for run in runs]
    is_finite = bool(np.isfinite(losses).all())
    return {
        "label": label,
        "seeds": len(runs),
        "loss": float(np.mean(losses)) if is_finite else None,
        "loss_deviation": float(np.std(losses)) if is_finite else None,
        "accuracy": float(np.mean([run.accuracy for run in runs])),
        "accuracy_deviation": float(np.std([run.accuracy for run in runs])),
        "seconds": float(np.mean([run.seconds for run in runs])),
    }


def show(summary: Sequence[dict[str, str | float | None]], out: pathlib.Path) -> None:
    """Prints the table on stdout."""
    table = rich.table.Table("optimizer", "validation loss", "±", "accuracy", "±", "seconds")
    for row in summary:
        _, _, *values = row.values()
        loss, deviation, accuracy, spread, seconds = (float("nan") if v is None else float(v) for v in values)
        cells = [f"{loss:.4f}", f"{deviation:.4f}", f"{accuracy:.1%}", f"{spread:.1%}", f"{seconds:.0f}"]
        table.add_row(str(row["label"]), *cells)
    console = rich.console.Console(soft_wrap=True)
    console.print(table)
    console.print(f"Curves: {out / 'comparison.png'}", highlight=False)


def _name(choice: Choice) -> str:
    """The name of a choice as a folder."""
    return choice.label.replace(":", "-").replace("/", "-")


def _number(value: float | None) -> str:
    return "no number as" if value is None else f"{value:.4f}"
