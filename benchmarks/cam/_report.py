"""The experiments' common parts: the command line, intervals, tables and plots."""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.special import stdtrit

RESULTS = pathlib.Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True)
class Table:
    """A titled table; numbers are written to four significant digits."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *([cell(x) for x in row] for row in self.rows)]
        return "\n".join([f"## {self.title}", "", *("| " + " | ".join(line) + " |" for line in lines)])


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and half the width of its 95 % confidence interval."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{number(self.mean)} ± {number(self.half, 2)}"


def interval(samples: np.ndarray) -> Interval:
    """Student's t interval of the mean of independent samples, `(samples,)`."""
    half = stdtrit(samples.size - 1, 0.975) * samples.std(ddof=1) / samples.size**0.5
    return Interval(float(samples.mean()), float(half))


def number(x: float, digits: int = 4) -> str:
    """Writes x to this many significant digits."""
    return f"{x:.{digits}g}"


def cell(x: object) -> str:
    return number(x) if isinstance(x, float) else str(x)


def parse(name: str, what: str) -> argparse.Namespace:
    """The command line of the experiment `name`: where results go, the seed, and whether to run it tiny."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.cam.{name}", description=what)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="seconds in place of minutes; the figures mean little")
    return parser.parse_args()


def write(out: pathlib.Path, name: str, what: str, tables: Sequence[Table], figure: Figure) -> None:
    """Writes NAME.md and NAME.svg, and prints their paths."""
    out.mkdir(parents=True, exist_ok=True)
    head = [f"# {what}", "", f"`python -m benchmarks.cam.{name}`", "", f"![plot]({name}.svg)", ""]
    text = "\n".join(head) + "\n" + "\n\n".join(table.markdown() for table in tables) + "\n"
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    # The same numbers give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(out / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
    print(out / f"{name}.md", out / f"{name}.svg", sep="\n")
