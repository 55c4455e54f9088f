"""The command line of a run."""

import pathlib
import shlex
from typing import NamedTuple

from ._processes import Place
from ._start import Start


class Call(NamedTuple):
    """What a run is started with."""

    preset: str
    name: str | None
    seed: int | None
    overrides: tuple[str, ...]
    start: Start | None
    place: Place | None

    def command(self, out: pathlib.Path | str, *options: str) -> str:
        """The command line that makes the run in the folder `out`, or resumes it."""
        parts = ["mnemo", "meta-train", self.preset, "--out", str(out), *options]
        parts += [] if self.name is None else ["--name", self.name]
        parts += [] if self.seed is None else ["--seed", str(self.seed)]
        parts += [part for override in self.overrides for part in ("--set", override)]
        parts += [] if self.start is None else ["--from", self.start.ref]
        parts += [] if self.place is None else self.place.options
        return shlex.join(parts)
