"""What a run shows while it goes on, and the records it leaves: metrics.jsonl, event files, curve.png."""

import contextlib
import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import rich.console
import rich.progress
import tensorboardX.summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

METRICS = "metrics.jsonl"
CURVE = "curve.png"


class Monitor:
    """Progress on stderr: a bar on a terminal, else a line now and then. Records in the run's folder."""

    def __init__(self, run: pathlib.Path, start: int):
        self._keep_metrics_until(run / METRICS, start)
        self._metrics = (run / METRICS).open("a", encoding="utf-8")
        self._events = _Events(run / "events", start)
        self._console = rich.console.Console(stderr=True)
        self._progress = rich.progress.Progress(
            rich.progress.TextColumn("meta-training"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("{task.fields[line]}"),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._bar = self._progress.add_task("meta-training", total=1.0, line="")
        self._last_line = -10.0

    def __enter__(self) -> "Monitor":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        with contextlib.closing(self._metrics):
            self._events.close()

    def step(self, record: Mapping[str, Any], done: float, seconds_left: float) -> None:
        """One meta-step's record, and how far the run is, from 0 to 1."""
        self._write(record)
        loss = sum(record["objective"].values()) / len(record["objective"])
        line = f"log-loss {loss:+.3f}  {record['inner_steps_per_second']:,.0f} inner steps/s"
        self._progress.update(self._bar, completed=min(done, 1.0), line=line)
        now = time.monotonic()
        if not self._console.is_terminal and (now - self._last_line >= 10 or done >= 1):
            self._last_line = now
            print(
                f"meta-step {record['meta_step']}  {line}  {min(done, 1):.0%}  {max(seconds_left, 0):.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def validation(self, record: Mapping[str, Any]) -> None:
        """One validation's record."""
        self._write(record)

    def _write(self, record: Mapping[str, Any]) -> None:
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
    def _keep_metrics_until(path: pathlib.Path, meta_step: int) -> None:
        """Drops the records of meta-steps that a resumed run takes again."""
        if path.exists():
            kept = [line for line in read_metrics(path) if line["meta_step"] <= meta_step]
            path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


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
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def plot(run: pathlib.Path) -> None:
    """Draws curve.png from metrics.jsonl: the meta-objective of each family, and the validation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_metrics(run / METRICS)
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    training, validation = figure.subplots(1, 2)
    steps = [r for r in records if "objective" in r]
    for family in steps[-1]["objective"] if steps else ():
        values = [r["objective"][family] for r in steps]
        training.plot([r["meta_step"] for r in steps], _smooth(values), label=family)
    checks = [r for r in records if "validation" in r]
    for family in checks[-1]["validation"] if checks else ():
        validation.plot(
            [r["meta_step"] for r in checks], [r["validation"][family] for r in checks], marker="o", label=family
        )
    for axes, title in ((training, "meta-training"), (validation, "validation, averaged weights")):
        axes.set(title=title, xlabel="meta-step", ylabel="mean log-loss of the inner training")
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend(fontsize="small")
    figure.savefig(run / CURVE, dpi=120)


def _smooth(values: Sequence[float], keep: float = 0.9) -> list[float]:
    """Running average, unbiased at the start."""
    total = weight = 0.0
    smoothed = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        smoothed.append(total / weight)
    return smoothed
