"""The newest figures of a run, as a table for terminals and as a line for logs."""

import datetime
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import rich.console
import rich.markup
import rich.progress_bar
import rich.table

from ._average import Average

COLUMNS = {
    "meta-loss": ("objective", "+.3f"),
    "validation": ("validation_objective", "+.3f"),
    "training loss": ("validation_training_loss", ".4g"),
    "validation loss": ("validation_loss", ".4g"),
}
"""Per title, a figure's name in the records and its format."""


class Display:
    """Takes records, and shows what they add up to."""

    def __init__(self):
        self.done = self.seconds_left = 0.0
        self._averages: defaultdict[str, Average] = defaultdict(Average)
        self._figures: defaultdict[str, dict[str, float]] = defaultdict(dict)
        """Figures of each family, by their names in the records."""
        self._step: Mapping[str, Any] = {}
        self._score = math.nan

    def take(self, record: Mapping[str, Any]) -> None:
        """Takes one more record."""
        for name, values in record.items():
            if isinstance(values, Mapping):
                for family, value in values.items():
                    smooth = self._averages[family].add if name == "objective" else float
                    self._figures[family][name] = smooth(value)
        if "objective" in record:
            self._step = record
        self._score = record.get("validation_score", self._score)

    def line(self) -> str:
        """The run in one line, without its families."""
        losses = [figures["objective"] for figures in self._figures.values() if "objective" in figures]
        loss = sum(losses) / len(losses) if losses else math.nan
        return f"meta-loss {loss:+.3f}  " + "  ".join(f"{name} {value}" for name, value in self._run().items())

    def table(self) -> rich.console.RenderableType:
        """The run, how far it is, and its families, of which a small terminal shows only the first."""
        families = rich.table.Table("family", box=None, pad_edge=False)
        for title in COLUMNS:
            families.add_column(title, justify="right")
        for family, figures in self._figures.items():
            cells = (format(figures[name], form) if name in figures else "" for name, form in COLUMNS.values())
            families.add_row(rich.markup.escape(family), *cells)
        run = rich.table.Table(box=None, pad_edge=False, show_header=False)
        for name, value in self._run().items():
            run.add_row(name, value)
        return rich.console.Group(run, rich.progress_bar.ProgressBar(1.0, self.done, width=60), "", families)

    def _run(self) -> dict[str, str]:
        if not self._step:
            return {}
        return {
            "meta-step": f"{self._step['meta_step']:,}",
            "inner steps/s": f"{self._step['inner_steps_per_second']:,.0f}",
            "gradient norm": f"{self._step['gradient_norm']:.3g}",
            **({} if math.isnan(self._score) else {"validation score": f"{self._score:+.3f}"}),
            "resets": f"{self._step['resets']:,}",
            "skipped": f"{self._step['skipped']:,}",
            "done": f"{self.done:.0%}",
            "time left": str(datetime.timedelta(seconds=round(self.seconds_left))),
        }
