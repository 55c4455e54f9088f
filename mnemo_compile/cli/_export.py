"""`mnemo export`."""

import pathlib
from typing import TYPE_CHECKING

import rich_click as click

from .. import _entry_points
from .._suggestions import did_you_mean
from ..errors import UsageError
from ._console import Choice, json_option, message, print_reports, zoo_option

if TYPE_CHECKING:
    from ..program import Watch


@click.command()
@click.argument("ref")
@click.option(
    "--target",
    "targets",
    type=Choice([*_entry_points.names(_entry_points.TARGETS), "all"]),
    multiple=True,
    required=True,
    help="Where the optimizer will run. Repeatable.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=pathlib.Path), metavar="DIR", help="Each target gets DIR/TARGET."
)
@click.option(
    "--print-after", metavar="PASS", help="Print the program of each phase after this pass, or after every pass: all."
)
@zoo_option
@json_option
def export(
    ref: str,
    targets: tuple[str, ...],
    out: pathlib.Path,
    print_after: str | None,
    location: str | None,
    as_json: bool,
) -> None:
    """Compile a cell to an optimizer for PyTorch, optax, ONNX or StableHLO, and verify it.

    Each target is compared with the cell in float64, and one that does not agree is not written. The table shows the
    largest relative error of each phase and of a whole step, and the drift over 100 steps. The programs of
    --print-after go to standard error.

    A folder DIR/TARGET is replaced only if it is an export of a cell of the same name, and no file in it was added or
    changed.

    \b
    Example:
      mnemo export mnemosyne-tiny --target torch --target onnx --out build
    """
    from .._refs import load
    from ..exporters import export as export_frozen

    reports = export_frozen(
        load(ref, location), targets, out, watch=None if print_after is None else watch(print_after)
    )
    print_reports(reports, as_json)
    message(f"written to {out}: {', '.join(report.target for report in reports)}")


def watch(after: str) -> "Watch":
    """A function that prints programs after the pass of this name, or after every pass."""
    from ..program import PASSES, Program

    if after != "all" and after not in PASSES:
        suggestion = did_you_mean(after, (*PASSES, "all"))
        raise UsageError(f"there is no pass {after!r}; the passes are {', '.join(PASSES)} and all{suggestion}")

    def show(phase: str, name: str, program: Program) -> None:
        if after in ("all", name):
            message(f"# {phase}, after {name}\n{program}\n")

    return show
