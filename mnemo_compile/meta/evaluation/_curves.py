"""The training curves of an evaluation, drawn."""

from collections.abc import Mapping, Sequence
from typing import Any, TYPE_CHECKING

import numpy as np

from .._drawing import add_legend, panels
from ._baselines import BASELINES, TUNED
from ._evaluate import baseline_results
from ._evaluation import Evaluation
from ._suites import Suite, TaskConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = {
    name: {"label": name, "color": "0.6", "linewidth": 0.8, "linestyle": (0, (4, 1, *(1, 1) * place))}
    for place, name in enumerate(name for name in BASELINES if name != TUNED)
} | {TUNED: {"label": "tuned AdamW", "color": "black", "linewidth": 1.5}}
"""How a baseline is drawn: in grey with its own dashes, but for the one that cells are measured by."""


def draw(evaluations: Mapping[str, Evaluation], suite: Suite) -> "Figure":
    """Training loss over the steps, one panel per task. Evaluations go by their labels."""
    tasks = {task.name: task for task in suite.tasks}
    evaluated = next(iter(evaluations.values())).tasks
    figure, axes = panels(len(evaluated), columns=4, width=4, height=3)
    for panel, task in zip(axes, evaluated, strict=True):
        _draw_task(panel, evaluations, suite, tasks[task.task], task.seeds)
    add_legend(figure, fontsize="small", ncols=min(4, len(evaluated) + 1))
    return figure


def _draw_task(panel: Any, evaluations: Mapping[str, Evaluation], suite: Suite, task: TaskConfig, seeds: int) -> None:
    for baseline, result in sorted(baseline_results(suite, task, seeds).items()):
        _line(panel, task.steps, result.curves, **STYLES[baseline])
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
