"""The records of a run, drawn: curve.png."""

import math
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TYPE_CHECKING

from ...errors import MnemoError
from ...frozen import replace_file
from .._drawing import panels, png
from ._average import Average
from ._metrics import METRICS, read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE = "curve.png"


def plot(run: pathlib.Path) -> pathlib.Path:
    """Draws curve.png from the metrics of a run, finished or not.

    **Returns:** the path of the drawing.

    **Raises:** `MnemoError` where there are no metrics.
    """
    records = read_metrics(run / METRICS) if (run / METRICS).is_file() else []
    if not records:
        raise MnemoError(f"{run} holds no metrics yet; draw the run when its first meta-step is done")
    replace_file(run / CURVE, png(draw(records), dpi=100))
    return run / CURVE


def draw(records: Sequence[Mapping[str, Any]]) -> "Figure":
    """The records over the meta-steps."""
    figure, axes = panels(6, columns=3, width=5, height=4)
    training, norm, resets, validation, ends, speed = axes
    _draw(training, records, "objective", smooth=True)
    _draw(validation, records, "validation_objective", marker="o")
    _draw(ends, records, "validation_training_loss", "training loss, ", marker="o", linestyle=":")
    _draw(ends, records, "validation_loss", "validation loss, ", marker="o")
    _draw(norm, records, "gradient_norm", "norm")
    _draw(resets, records, "resets", "tasks reset")
    _draw(resets, records, "skipped", "meta-steps skipped", linestyle=":")
    _draw(speed, records, "inner_steps_per_second", "speed")
    log_loss = "mean log-loss of the inner training"
    for panel, title, label in (
        (training, "meta-training", log_loss),
        (validation, "validation, averaged weights", log_loss),
        (ends, "validation, averaged weights, at the end", "loss"),
        (norm, "meta-gradient", "norm"),
        (resets, "tasks reset and meta-steps skipped", "number so far"),
        (speed, "speed", "inner steps per second"),
    ):
        panel.set_title(title, fontsize="medium")
        panel.set(xlabel="meta-step", ylabel=label)
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize="small", loc="upper right")
    for panel in (norm, ends):
        if any(_is_positive(line.get_ydata()) for line in panel.lines):
            panel.set_yscale("log")
    return figure


def _draw(
    panel: Any,
    records: Sequence[Mapping[str, Any]],
    name: str,
    label: str = "",
    smooth: bool = False,
    **style: Any,
) -> None:
    """A line for each family, or one for the run. Its label begins with `label`."""
    series: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for record in records:
        values = record.get(name, {})
        for family, value in values.items() if isinstance(values, Mapping) else [("", values)]:
            series[family].append((record["meta_step"], value))
    for place, (family, points) in enumerate(series.items()):
        steps, values = zip(*points, strict=True)
        shown = _smooth(values) if smooth else values
        panel.plot(steps, shown, label=f"{label}{family}", color=f"C{place % 10}", **style)


def _is_positive(values: Iterable[float]) -> bool:
    return any(math.isfinite(value) and value > 0 for value in values)


def _smooth(values: Iterable[float]) -> list[float]:
    average = Average()
    return [average.add(value) for value in values]
