"""Checkpoints that recipes make for others, kept in the cache folder."""

import dataclasses
import hashlib
import json
import os
import pathlib

import click
import platformdirs

from ._loop import train
from ._optimizers import choices
from ._options import Settings
from ._task import Task


def made(name: str, task: Task, settings: Settings) -> pathlib.Path:
    """The folder of a trained network. It is trained the first time, and an unfinished training goes on."""
    chosen = os.environ.get("MNEMO_CACHE")
    cache = pathlib.Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("mnemo-compile")
    values = {key: value for key, value in dataclasses.asdict(settings).items() if key not in ("out", "workers")}
    digest = hashlib.sha256(json.dumps(values, default=str, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache / "recipes" / f"{name}-{digest}"
    if not (folder / "result.json").exists():
        click.echo(f"{name} is trained first, and kept in {folder}.", err=True)
        train(task, settings, choices(settings.optimizer)[0], settings.seed, folder, keep=True)
    return folder / "model"
