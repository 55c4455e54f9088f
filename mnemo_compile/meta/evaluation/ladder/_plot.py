"""The results on a ladder, drawn."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

from ._ladder import LadderEvaluation, RungEvaluation

COLUMNS = 6
STYLES = {"adamw": ("black", "--"), "muon": ("0.5", "-.")}


def draw(evaluations: Sequence[LadderEvaluation], path: pathlib.Path) -> None:
    """The result over the multiplier of the step, one panel per rung. Lines across are baselines at their best."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [rung.rung for rung in evaluations[0].rungs]
    columns = min(COLUMNS, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3 * columns, 2.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    for panel, name in zip(panels, names, strict=False):
        same = [(evaluation, rung) for evaluation in evaluations for rung in evaluation.rungs if rung.rung == name]
        _draw_rung(panel, same)
    panels[0].legend(fontsize="x-small")
    figure.savefig(path, dpi=100)


def _draw_rung(panel: Any, evaluations: Sequence[tuple[LadderEvaluation, RungEvaluation]]) -> None:
    first = evaluations[0][1]
    for place, (evaluation, rung) in enumerate(evaluations):
        points = [(multiplier, value) for multiplier, value in sorted(rung.results.items()) if math.isfinite(value)]
        label = f"{evaluation.name}@{evaluation.version}"
        panel.plot([x for x, _ in points], [y for _, y in points], "o-", color=f"C{place}", label=label)
    for name, baseline in first.baselines.items():
        if baseline.unit == first.unit and math.isfinite(baseline.result):
            colour, style = STYLES[name]
            panel.axhline(baseline.result, color=colour, linestyle=style, linewidth=1, label=name)
    mark = "" if first.law is None else " ✓" if first.law.holds else " ✗"
    panel.set_xscale("log", base=2)
    panel.set_title(f"{first.rung}{mark}", fontsize="small")
    panel.set_ylabel("fraction of steps" if first.unit == "steps" else first.unit, fontsize="x-small")
    panel.tick_params(labelsize="x-small")
    panel.grid(alpha=0.3)
