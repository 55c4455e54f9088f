"""Checkpoints that recipes make for others, kept in the cache folder."""

import os
import pathlib

import click
import platformdirs

from ._loop import train
from ._optimizers import choices
from ._options import Settings
from ._task import Task


def made(name: str, task: Task, optimizer: str, *, steps: int, batch: int) -> pathlib.Path:
    """The folder of a trained network. It is trained the first time, and an unfinished training goes on."""
    chosen = os.environ.get("MNEMO_CACHE")
    cache = pathlib.Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("mnemo-compile")
    out = cache / "recipes" / f"{name}-{optimizer.replace(':', '-')}-{steps}-{batch}"
    if not (out / "result.json").exists():
        click.echo(f"{name} is trained first, for {steps} steps, and kept in {out}.", err=True)
        settings = Settings(out=out, steps=steps, batch=batch, optimizer=optimizer, eval_every=steps // 5)
        train(task, settings, choices(optimizer)[0], settings.seed, out)
    return out / "model"
