"""The training curves of an evaluation, drawn."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._baselines import TUNED
from ._evaluate import baseline_results
from ._evaluation import Evaluation
from ._suites import Suite, TaskConfig

GREY = {"label": "_", "color": "0.75", "linewidth": 0.8}
BLACK = {"label": "tuned AdamW", "color": "black", "linewidth": 1.5}


def draw(evaluations: Mapping[str, Evaluation], suite: Suite, path: pathlib.Path) -> None:
    """Training loss over the steps, one panel per task. Evaluations go by their labels; baselines are grey."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = {task.name: task for task in suite.tasks}
    names = [(task.task, task.seeds) for task in next(iter(evaluations.values())).tasks]
    columns = min(4, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4 * columns, 3 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    for panel, (name, seeds) in zip(panels, names, strict=False):
        _draw_task(panel, evaluations, suite, tasks[name], seeds)
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def _draw_task(panel: Any, evaluations: Mapping[str, Evaluation], suite: Suite, task: TaskConfig, seeds: int) -> None:
    for baseline, result in sorted(baseline_results(suite, task, seeds).items()):
        _line(panel, task.steps, result.curves, **(BLACK if baseline == TUNED else GREY))
    for place, (label, evaluation) in enumerate(evaluations.items()):
        curves = next(each.curves for each in evaluation.tasks if each.task == task.name)
        _line(panel, task.steps, curves, label=label, color=f"C{place}", linewidth=1.5)
    panel.set(title=task.name, xlabel="step", ylabel="training loss")
    panel.grid(alpha=0.3)


def _line(panel: Any, steps: int, curves: Sequence[Sequence[float | None]], **style: Any) -> None:
    """The mean over seeds, on a logarithmic axis if all of it is above zero."""
    mean = np.array(curves, np.float64).mean(axis=0)
    places = (np.arange(len(mean)) + 0.5) * steps / len(mean)
    panel.plot(places, mean, **style)
    if np.nanmin(mean) > 0:
        panel.set_yscale("log")
