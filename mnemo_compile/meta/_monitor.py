"""What a run shows while it goes on, and the records it leaves: metrics.jsonl, event files, curve.png."""

import contextlib
import datetime
import io
import json
import math
import os
import pathlib
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import rich.console
import rich.live
import rich.markup
import rich.progress_bar
import rich.table
import tensorboardX.summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

from ..frozen import write_file
from ..errors import MnemoError

METRICS = "metrics.jsonl"
CURVE = "curve.png"
SECONDS_BETWEEN_LINES = 10


class Monitor:
    """Progress on stderr: on a terminal a table of the families that is kept up to date, else a line now and then.

    Records in the run's folder: all that is shown, but for the time left.
    """

    def __init__(self, run: pathlib.Path, start: int):
        self._shown = _Shown()
        for record in self._keep_metrics_until(run / METRICS, start):
            self._shown.take(record)
        self._metrics = (run / METRICS).open("a", encoding="utf-8")
        self._events = _Events(run / "events", start)
        console = rich.console.Console(stderr=True)
        # Rich takes some pipes for terminals, if the environment says so.
        self._is_live = sys.stderr.isatty() and console.is_interactive
        self._live = rich.live.Live(console=console, auto_refresh=False)
        self._refreshed = self._last_line = -math.inf

    def __enter__(self) -> "Monitor":
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_live:
            self._live.update(self._shown.table(), refresh=True)
            self._live.stop()
        with contextlib.closing(self._metrics):
            self._events.close()

    def step(self, record: Mapping[str, Any], done: float, seconds_left: float) -> None:
        """One meta-step's record, and how far the run is, from 0 to 1."""
        self._write(record)
        self._shown.done, self._shown.seconds_left = min(done, 1.0), max(seconds_left, 0.0)
        now = time.monotonic()
        if self._is_live:
            # Drawn between meta-steps and not by a thread; four times a second is what an eye can follow.
            if now - self._refreshed >= 0.25:
                self._refreshed = now
                self._live.update(self._shown.table(), refresh=True)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES or done >= 1:
            self._last_line = now
            print(self._shown.line(), file=sys.stderr, flush=True)

    def validation(self, record: Mapping[str, Any]) -> None:
        """One validation's record."""
        self._write(record)

    def _write(self, record: Mapping[str, Any]) -> None:
        self._shown.take(record)
        self._metrics.write(json.dumps(record) + "\n")
        self._metrics.flush()
        step = record["meta_step"]
        for name, value in record.items():
            if isinstance(value, Mapping):
                for part, number in value.items():
                    self._events.add(f"{name}/{part}", number, step)
            elif name != "meta_step":
                self._events.add(name, value, step)
        self._events.flush()

    @staticmethod
    def _keep_metrics_until(path: pathlib.Path, meta_step: int) -> list[dict[str, Any]]:
        """Drops the records of meta-steps that a resumed run takes again, and gives the others."""
        if not path.exists():
            return []
        kept = [line for line in read_metrics(path) if line["meta_step"] <= meta_step]
        _replace(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        return kept


class _Average:
    """Running average, unbiased at the start."""

    def __init__(self, keep: float = 0.9):
        self._keep, self._total, self._weight = keep, 0.0, 0.0

    def add(self, value: float) -> float:
        """The average with one more value."""
        self._total, self._weight = self._keep * self._total + value, self._keep * self._weight + 1
        return self._total / self._weight


class _Shown:
    """The newest figures, as they are shown."""

    def __init__(self):
        self.done = self.seconds_left = 0.0
        self._averages: defaultdict[str, _Average] = defaultdict(_Average)
        self._figures: defaultdict[str, dict[str, float]] = defaultdict(dict)
        """Of each family, by their names in the records."""
        self._step: Mapping[str, Any] = {}
        self._score = math.nan

    def take(self, record: Mapping[str, Any]) -> None:
        """Another record."""
        for name, values in record.items():
            if isinstance(values, Mapping):
                for family, value in values.items():
                    smooth = self._averages[family].add if name == "objective" else float
                    self._figures[family][name] = smooth(value)
        if "objective" in record:
            self._step = record
        self._score = record.get("validation_score", self._score)

    def line(self) -> str:
        """Without families."""
        losses = [figures["objective"] for figures in self._figures.values() if "objective" in figures]
        loss = sum(losses) / len(losses) if losses else math.nan
        return f"meta-loss {loss:+.3f}  " + "  ".join(f"{name} {value}" for name, value in self._run().items())

    def table(self) -> rich.console.RenderableType:
        """The run, how far it is, and families, of which a small terminal shows only the first."""
        columns = {
            "meta-loss": ("objective", "+.3f"),
            "validation": ("validation", "+.3f"),
            "loss at the end": ("validation_final", ".4g"),
            "held-out loss": ("validation_held_out", ".4g"),
        }
        families = rich.table.Table("family", box=None, pad_edge=False)
        for title in columns:
            families.add_column(title, justify="right")
        for family, figures in self._figures.items():
            cells = (format(figures[name], form) if name in figures else "" for name, form in columns.values())
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


class _Events:
    """An event file for TensorBoard, written on this thread, so that a full disk is found here and nowhere else."""

    def __init__(self, folder: pathlib.Path, start: int):
        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        if start:
            # TensorBoard then drops what an earlier file says of the meta-steps that are taken again.
            began = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=start + 1, session_log=began))

    def add(self, name: str, value: float, step: int) -> None:
        summary = tensorboardX.summary.scalar(name, value)
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The records of a run; a last line that a killed run left unfinished is passed over."""
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not isinstance(record, dict) or "meta_step" not in record:
            raise MnemoError(f"{path} holds something else than a run's records; remove it, or name another run")
        records.append(record)
    return records


def plot(run: pathlib.Path) -> pathlib.Path:
    """Draws curve.png from the metrics of a run, finished or not.

    **Returns:** the path of the drawing.

    **Raises:** `MnemoError` where there are no metrics.
    """
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_metrics(run / METRICS) if (run / METRICS).is_file() else []
    if not records:
        raise MnemoError(f"{run} holds no metrics yet; draw the run when its first meta-step is done")
    figure = Figure(figsize=(15, 8), layout="constrained")
    FigureCanvasAgg(figure)
    (training, norm, resets), (validation, ends, speed) = figure.subplots(2, 3)

    def draw(axes: Axes, name: str, smooth: bool = False, **style: Any) -> None:
        """A line for each family, or one."""
        series: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        for record in records:
            values = record.get(name, {})
            for label, value in values.items() if isinstance(values, Mapping) else [(name, values)]:
                series[label].append((record["meta_step"], value))
        for place, (label, points) in enumerate(series.items()):
            steps, values = zip(*points, strict=True)
            line = _smooth(values) if smooth else values
            axes.plot(steps, line, label=label, color=f"C{place % 10}", **style)

    draw(training, "objective", smooth=True)
    draw(validation, "validation", marker="o")
    draw(ends, "validation_final", marker="o", linestyle=":")
    draw(ends, "validation_held_out", marker="o")
    draw(norm, "gradient_norm")
    draw(resets, "resets")
    draw(resets, "skipped", linestyle=":")
    draw(speed, "inner_steps_per_second")
    log_loss = "mean log-loss of the inner training"
    for axes, title, label in (
        (training, "meta-training", log_loss),
        (validation, "validation, averaged weights", log_loss),
        (ends, "validation: held-out loss, and dotted the training loss at the end", "loss"),
        (norm, "meta-gradient", "norm"),
        (resets, "tasks reset, and dotted meta-steps skipped", "number so far"),
        (speed, "speed", "inner steps a second"),
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
    _replace(run / CURVE, image.getvalue())
    return run / CURVE


def _is_positive(values: Iterable[float]) -> bool:
    return any(math.isfinite(value) and value > 0 for value in values)


def _smooth(values: Iterable[float]) -> list[float]:
    average = _Average()
    return [average.add(value) for value in values]


def _replace(path: pathlib.Path, content: bytes) -> None:
    """Puts a file in the place of another, which is whole until then."""
    fresh = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        write_file(fresh, content)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
