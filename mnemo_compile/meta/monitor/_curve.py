"""The records of a run, drawn: curve.png."""

import io
import math
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...errors import MnemoError
from ._average import Average
from ._metrics import METRICS, read_metrics, replace_file

CURVE = "curve.png"


def plot(run: pathlib.Path) -> pathlib.Path:
    """Draws curve.png from the metrics of a run, finished or not.

    **Returns:** the path of the drawing.

    **Raises:** `MnemoError` where there are no metrics.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_metrics(run / METRICS) if (run / METRICS).is_file() else []
    if not records:
        raise MnemoError(f"{run} holds no metrics yet; draw the run when its first meta-step is done")
    figure = Figure(figsize=(15, 8), layout="constrained")
    FigureCanvasAgg(figure)
    (training, norm, resets), (validation, ends, speed) = figure.subplots(2, 3)
    _draw(training, records, "objective", smooth=True)
    _draw(validation, records, "validation_objective", marker="o")
    _draw(ends, records, "validation_training_loss", marker="o", linestyle=":")
    _draw(ends, records, "validation_loss", marker="o")
    _draw(norm, records, "gradient_norm")
    _draw(resets, records, "resets")
    _draw(resets, records, "skipped", linestyle=":")
    _draw(speed, records, "inner_steps_per_second")
    log_loss = "mean log-loss of the inner training"
    for axes, title, label in (
        (training, "meta-training", log_loss),
        (validation, "validation, averaged weights", log_loss),
        (ends, "validation: validation loss, and dotted the training loss, at the end", "loss"),
        (norm, "meta-gradient", "norm"),
        (resets, "tasks reset, and dotted meta-steps skipped", "number so far"),
        (speed, "speed", "inner steps per second"),
    ):
        axes.set_title(title, fontsize="medium")
        axes.set(xlabel="meta-step", ylabel=label)
        axes.grid(alpha=0.3)
    for axes in (training, validation):
        if axes.has_data():
            axes.legend(fontsize="small", loc="upper right")
    for axes in (norm, ends):
        if any(_is_positive(line.get_ydata()) for line in axes.lines):
            axes.set_yscale("log")
    image = io.BytesIO()
    figure.savefig(image, dpi=100)
    replace_file(run / CURVE, image.getvalue())
    return run / CURVE


def _draw(axes: Any, records: Sequence[Mapping[str, Any]], name: str, smooth: bool = False, **style: Any) -> None:
    """A line for each family, or one for the run."""
    series: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for record in records:
        values = record.get(name, {})
        for label, value in values.items() if isinstance(values, Mapping) else [(name, values)]:
            series[label].append((record["meta_step"], value))
    for place, (label, points) in enumerate(series.items()):
        steps, values = zip(*points, strict=True)
        axes.plot(steps, _smooth(values) if smooth else values, label=label, color=f"C{place % 10}", **style)


def _is_positive(values: Iterable[float]) -> bool:
    return any(math.isfinite(value) and value > 0 for value in values)


def _smooth(values: Iterable[float]) -> list[float]:
    average = Average()
    return [average.add(value) for value in values]
