"""The results on a ladder, drawn."""

import math
from collections.abc import Mapping
from typing import Any, TYPE_CHECKING

from ..._drawing import add_legend, panels
from ._ladder import LadderEvaluation, RungEvaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = {"adamw": ("black", "--"), "muon": ("0.5", "-.")}


def draw(evaluations: Mapping[str, LadderEvaluation]) -> "Figure":
    """The result over the multiplier of the step, one panel per rung. Evaluations go by their labels.

    Lines across are baselines at their best.
    """
    names = [rung.rung for rung in next(iter(evaluations.values())).rungs]
    figure, axes = panels(len(names), columns=6, width=3, height=2.6)
    for panel, name in zip(axes, names, strict=True):
        rungs = {label: rung for label, each in evaluations.items() for rung in each.rungs if rung.rung == name}
        _draw_rung(panel, rungs)
    add_legend(figure, fontsize="x-small", ncols=len(names))
    return figure


def _draw_rung(panel: Any, rungs: Mapping[str, RungEvaluation]) -> None:
    first = next(iter(rungs.values()))
    for place, (label, rung) in enumerate(rungs.items()):
        points = [(multiplier, value) for multiplier, value in sorted(rung.results.items()) if math.isfinite(value)]
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
