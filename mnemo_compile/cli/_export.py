"""`mnemo export`."""

import pathlib
from typing import TYPE_CHECKING

import rich_click as click

from ..errors import UsageError
from ._console import json_option, message, print_reports, zoo_option

if TYPE_CHECKING:
    from ..program import Watch

TARGETS = ("onnx", "torch", "optax", "stablehlo", "all")


@click.command()
@click.argument("ref")
@click.option("--target", "targets", type=click.Choice(TARGETS), multiple=True, required=True, help="Repeatable.")
@click.option("--out", required=True, type=click.Path(path_type=pathlib.Path), metavar="DIR", help="Gets DIR/TARGET.")
@click.option("--print-after", metavar="PASS", help="Print each phase's program after this pass, or after all: all.")
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
    """Compile a cell, verify it against the cell in float64, and write it.

    The table gives the largest relative error of each phase and of a step, and the drift over 100 steps. A target
    that does not agree is not written. What --print-after prints goes to the standard error.

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
    """Prints programs after the pass of this name, or after every pass."""
    from ..program import PASSES, Program

    if after != "all" and after not in PASSES:
        raise UsageError(f"there is no pass {after!r}; the passes are {', '.join(PASSES)} and all")

    def show(phase: str, name: str, program: Program) -> None:
        if after in ("all", name):
            message(f"# {phase}, after {name}\n{program}\n")

    return show
