"""The folder of a run: what it was started with, its metrics, its curves and its checkpoints."""

import json
import logging
import math
import os
import pathlib
from typing import Any

import click
import jax
import orbax.checkpoint as ocp
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ._options import Settings

MAY_CHANGE = {"out", "resume", "devices", "save_every"}
"""Settings that a resumed run need not repeat."""


def begin(settings: Settings, options: dict[str, Any]) -> None:
    """Writes what a run is, or refuses a folder that holds another one."""
    values = {**settings.__dict__, **options}
    run = {name: str(value) for name, value in values.items() if name not in MAY_CHANGE}
    path = settings.out / "run.json"
    if not settings.resume:
        if path.exists():
            raise click.UsageError(f"{settings.out} holds a run already; pass --resume, or another --out.")
        settings.out.mkdir(parents=True, exist_ok=True)
        _write(path, json.dumps(run, indent=1) + "\n")
        return
    if not path.exists():
        raise click.UsageError(f"{settings.out} holds no run to resume; leave --resume out.")
    before = json.loads(path.read_text(encoding="utf-8"))
    for name in {**before, **run}:
        if before.get(name) != run.get(name):
            raise click.UsageError(
                f"{settings.out} holds another run: {name} is {before.get(name)} there and {run.get(name)} here; "
                "pass another --out."
            )


class Metrics:
    """A file with a JSON object per line: `step` with `loss`, or with `validation_loss` and `validation_accuracy`."""

    def __init__(self, path: pathlib.Path, step: int):
        """Drops the lines after `step`, which a resumed run writes again."""
        self.lines = [line for line in read_metrics(path) if line["step"] <= step] if path.exists() else []
        _write(path, "".join(json.dumps(line) + "\n" for line in self.lines))
        self._path = path

    def add(self, step: int, **values: float) -> None:
        """Adds a line. Numbers that are not finite become null."""
        self.lines.append({"step": step, **{name: _finite(value) for name, value in values.items()}})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.lines[-1]) + "\n")


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a file of metrics. A last line that was cut off does not count."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def draw(lines: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Training loss, validation loss and accuracy against steps."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, key in zip(figure.subplots(1, 3), ("loss", "validation_loss", "validation_accuracy"), strict=True):
        points = [(line["step"], math.nan if line[key] is None else line[key]) for line in lines if key in line]
        axes.plot(*zip(*points, strict=True), linewidth=1.2)
        axes.set(xlabel="step", title=key.replace("_", " "))
        axes.grid(alpha=0.3)
    partial = path.with_name("partial-" + path.name)
    figure.savefig(partial, dpi=80)
    partial.replace(path)


class Checkpoints:
    """The two newest checkpoints of a run, each whole or absent. Every device writes and reads its own part."""

    def __init__(self, folder: pathlib.Path):
        # Orbax would report its errors a second time.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def latest(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, tree: Any) -> None:
        """Writes the arrays of a tree."""
        self._manager.save(step, args=ocp.args.StandardSave(_numbered(tree)))

    def restore(self, template: Any) -> Any:
        """The newest arrays, in the structure, dtypes and shardings of this tree."""
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), template)
        restored = self._manager.restore(self.latest(), args=ocp.args.StandardRestore(_numbered(abstract)))
        leaves, structure = jax.tree.flatten(template)
        return structure.unflatten([restored.get(f"{index:05d}", leaf) for index, leaf in enumerate(leaves)])

    def close(self) -> None:
        self._manager.close()


def _numbered(tree: Any) -> dict[str, Any]:
    """Leaves by their place, which does not depend on how a library names the fields of a tree.

    Empty arrays, which Orbax refuses, are left out.
    """
    return {f"{index:05d}": leaf for index, leaf in enumerate(jax.tree.leaves(tree)) if leaf.size}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _write(path: pathlib.Path, text: str) -> None:
    """Writes a file that is whole or absent."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
