"""Shows a run while it goes on, and records it."""

import contextlib
import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import rich.console
import rich.live

from ._display import Display
from ._events import Events
from ._metrics import METRICS, truncate_metrics

SECONDS_BETWEEN_LINES = 10


class Monitor:
    """Progress on stderr: on a terminal a table of the families that is kept up to date, else a line now and then.

    The run's folder gets records of all that is shown, except the time left.
    """

    def __init__(self, run: pathlib.Path, start: int):
        self._display = Display()
        for record in truncate_metrics(run / METRICS, start):
            self._display.take(record)
        self._metrics = (run / METRICS).open("a", encoding="utf-8")
        self._events = Events(run / "events", start)
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
            self._live.update(self._display.table(), refresh=True)
            self._live.stop()
        with contextlib.closing(self._metrics):
            self._events.close()

    def step(self, record: Mapping[str, Any], done: float, seconds_left: float) -> None:
        """Takes one meta-step's record, and how far the run is, from 0 to 1."""
        self._write(record)
        self._display.done, self._display.seconds_left = min(done, 1.0), max(seconds_left, 0.0)
        now = time.monotonic()
        if self._is_live:
            # Drawn between meta-steps and not by a thread; four times a second is what an eye can follow.
            if now - self._refreshed >= 0.25:
                self._refreshed = now
                self._live.update(self._display.table(), refresh=True)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES or done >= 1:
            self._last_line = now
            print(self._display.line(), file=sys.stderr, flush=True)

    def validation(self, record: Mapping[str, Any]) -> None:
        """Takes one validation's record."""
        self._write(record)

    def _write(self, record: Mapping[str, Any]) -> None:
        self._display.take(record)
        self._metrics.write(json.dumps(record) + "\n")
        self._metrics.flush()
        step = record["meta_step"]
        for name, value in record.items():
            if isinstance(value, Mapping):
                for family, number in value.items():
                    self._events.add(f"{name}/{family}", number, step)
            elif name != "meta_step":
                self._events.add(name, value, step)
        self._events.flush()
