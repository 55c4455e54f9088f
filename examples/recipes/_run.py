"""The folder of a run: what it was started with, its metrics, and its result."""

import json
import math
import os
import pathlib
import time
from dataclasses import asdict, dataclass
from typing import Any

import click
from torch import nn

from ._optimizers import Choice
from ._options import Settings

NOT_PART = {"out", "resume", "compare", "seeds", "workers", "save_every", "shard", "options"}
"""Settings that may change when a run goes on, or that its folder names."""


@dataclass(frozen=True)
class Result:
    """The end of a run."""

    label: str
    seed: int
    steps: int
    loss: float | None
    """Validation loss; none if it is not finite."""
    accuracy: float
    seconds: float


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a file that is whole or absent."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")
    os.replace(partial, path)


def finished(folder: pathlib.Path, settings: Settings, choice: Choice, seed: int) -> Result | None:
    """The result of a run, if it has ended. A run with other options is refused."""
    path = folder / "result.json"
    if not path.exists():
        return None
    before = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    _refuse_other(folder, "option", before["options"], _options_of(settings, choice, seed))
    return Result(**json.loads(path.read_text(encoding="utf-8")))


def write_result(folder: pathlib.Path, result: Result) -> None:
    write_json(folder / "result.json", asdict(result))


def begin(
    folder: pathlib.Path, settings: Settings, choice: Choice, seed: int, model: nn.Module, *, resume: bool
) -> None:
    """Writes what a run is, or refuses to go on with a run that is something else."""
    shapes = {name: list(param.shape) for name, param in model.named_parameters() if param.requires_grad}
    run = {"options": _options_of(settings, choice, seed), "parameters": shapes}
    path = folder / "run.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, run)
        return
    if not resume:
        raise click.UsageError(f"{folder} holds a run; pass --resume to go on with it, or another --out.")
    before = json.loads(path.read_text(encoding="utf-8"))
    _refuse_other(folder, "option", before["options"], run["options"])
    _refuse_other(folder, "parameter", before["parameters"], run["parameters"])


def _options_of(settings: Settings, choice: Choice, seed: int) -> dict[str, Any]:
    """What decides the curve of a run, as JSON has it."""
    values = {**asdict(settings), **settings.options, "optimizer": choice.label, "seed": seed}
    return json.loads(json.dumps({name: values[name] for name in values if name not in NOT_PART}, default=str))


def _refuse_other(folder: pathlib.Path, kind: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            what = "another run" if kind == "option" else "another model"
            raise click.UsageError(
                f"{folder} holds a checkpoint of {what}: {kind} {name} is {before.get(name)} there and "
                f"{now.get(name)} here; pass another --out."
            )


class Metrics:
    """A file with a JSON object per line: `step` with `loss`, or with `validation_loss` and `validation_accuracy`."""

    def __init__(self, path: pathlib.Path | None, step: int):
        """Drops the lines after `step`, which a resumed run writes again. Without a path nothing is written."""
        lines = read_metrics(path) if path is not None and path.exists() else []
        kept = [line for line in lines if line["step"] <= step]
        self._started = time.monotonic() - (kept[-1]["seconds"] if kept else 0.0)
        self._file = None
        if path is not None:
            partial = path.with_name(path.name + ".partial")
            partial.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
            os.replace(partial, path)
            self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def seconds(self) -> float:
        """Since the run began, without pauses."""
        return time.monotonic() - self._started

    def write(self, step: int, **values: float) -> None:
        """Adds a line. Numbers that are not finite become null."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        if self._file is not None:
            self._file.write(json.dumps({"step": step, **finite, "seconds": round(self.seconds, 3)}) + "\n")

    def flush(self) -> None:
        """Lets readers see what is written."""
        if self._file is not None:
            self._file.flush()


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a file of metrics. A last line that was cut off does not count."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            lines.append(json.loads(line))
    return lines
