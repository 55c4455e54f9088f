"""What a run says while it trains, on stderr."""

import sys
import time
from types import TracebackType

import rich.console
import rich.progress


class Progress:
    """A bar on a terminal, and otherwise a line per validation. Without a `title` it says nothing."""

    def __init__(self, title: str | None, steps: int, start: int):
        self._title, self._steps, self._done = title, steps, start
        self._console = rich.console.Console(stderr=True, soft_wrap=True)
        self._bar = rich.progress.Progress(
            *rich.progress.Progress.get_default_columns(),
            rich.progress.MofNCompleteColumn(),
            console=self._console,
            disable=title is None or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(title or "", total=steps, completed=start)

    def __enter__(self) -> "Progress":
        self._started = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._bar.stop()
        if kind is KeyboardInterrupt and self._title is not None:
            self._console.print("Stopped; the same command with --resume goes on from the last checkpoint.")

    def advance(self) -> None:
        self._bar.advance(self._task)

    def say(self, step: int, loss: float, accuracy: float) -> None:
        """Prints a validation."""
        if self._title is not None:
            seconds = time.monotonic() - self._started
            self._console.print(
                f"{self._title}: step {step} of {self._steps}, validation loss {loss:.4f}, "
                f"accuracy {accuracy:.1%}, {seconds:.0f} s",
                highlight=False,
            )
