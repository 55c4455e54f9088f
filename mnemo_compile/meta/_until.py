"""When a run stops."""

from typing import NamedTuple

OVERRUN = 0.1
"""By this fraction of its time a run may go over, with its last meta-step and validation."""


class Until(NamedTuple):
    """A run stops after so many minutes in meta-steps, or after so many meta-steps."""

    minutes: float
    steps: int | None
    """If it is given, it counts instead of the minutes."""

    def done(self, meta_step: int, seconds: float) -> float:
        """How far the run is, from 0 to 1."""
        return seconds / (60 * self.minutes) if self.steps is None else meta_step / self.steps

    def seconds_left(self, meta_step: int, seconds: float, start: int, before: float) -> float:
        """How long the run still takes, at its pace since meta-step `start` and second `before`."""
        if self.steps is None:
            return 60 * self.minutes - seconds
        return (self.steps - meta_step) * (seconds - before) / (meta_step - start)

    def option(self, meta_step: int, seconds: float) -> tuple[str, str]:
        """The option of a command that makes a run of so many meta-steps, which took so long.

        If the run was longer, because it was resumed with less time than it already had, its meta-steps count.
        """
        if self.done(meta_step, seconds) > 1 + OVERRUN:
            return "--steps", f"{meta_step}"
        return ("--minutes", f"{self.minutes:g}") if self.steps is None else ("--steps", f"{self.steps}")
