"""Curves of runs."""

import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ._run import read_metrics

Curve = tuple[list[int], list[float]]


def curve(path: pathlib.Path, key: str) -> Curve:
    """Steps and values of one of the metrics."""
    lines = [line for line in read_metrics(path) if key in line]
    return [line["step"] for line in lines], [math.nan if line[key] is None else line[key] for line in lines]


def draw(runs: Mapping[str, Sequence[pathlib.Path]], path: pathlib.Path) -> None:
    """Training loss, validation loss and accuracy against steps, as means over the runs of each label."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = {"loss": "training loss", "validation_loss": "validation loss", "validation_accuracy": "accuracy"}
    for axes, (key, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for label, folders in runs.items():
            curves = [curve(folder / "metrics.jsonl", key) for folder in folders]
            steps, mean = curves[0][0], np.mean([values for _, values in curves], axis=0)
            axes.plot(steps, _smooth(mean) if key == "loss" else mean, label=label, linewidth=1.2)
        axes.set(xlabel="step", title=title)
        if key != "validation_accuracy":
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    partial = path.with_name("partial-" + path.name)
    figure.savefig(partial, dpi=80)
    partial.replace(path)


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean over the last twentieth of the run."""
    width = max(1, len(values) // 20)
    return np.array([values[max(0, place - width + 1) : place + 1].mean() for place in range(len(values))])
