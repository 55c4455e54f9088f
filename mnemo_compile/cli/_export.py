"""`mnemo export`."""

import pathlib

import rich_click as click

from ..errors import MnemoError
from ._console import json_option, message, print_json, print_table, zoo_option

TARGETS = ("onnx", "torch", "optax", "all")


@click.command()
@click.argument("ref")
@click.option("--target", "targets", type=click.Choice(TARGETS), multiple=True, required=True, help="Repeatable.")
@click.option("--out", required=True, type=click.Path(path_type=pathlib.Path), metavar="DIR", help="Gets DIR/TARGET.")
@zoo_option
@json_option
def export(ref: str, targets: tuple[str, ...], out: pathlib.Path, location: str | None, as_json: bool) -> None:
    """Compile a cell, verify it against the reference, and write it.

    The table gives the largest relative error of each phase and of a step, and the drift over 100 steps. A target
    that does not agree is not written.

    \b
    Example:
      mnemo export mnemosyne-tiny --target torch --target onnx --out build
    """
    from .._refs import load
    from ..exporters import export as export_frozen

    reports = export_frozen(load(ref, location), targets, out)
    if as_json:
        print_json(
            [
                {
                    "target": report.target,
                    "phases": report.phases,
                    "step_error": report.step_error,
                    "drift": report.drift,
                    "passed": report.passed,
                }
                for report in reports
            ]
        )
    else:
        import rich.table

        table = rich.table.Table("target", "phase", "largest relative error", "100-step drift", "")
        for report in reports:
            rows = [*report.phases.items(), ("step", report.step_error)]
            for phase, error in rows:
                last = phase == "step"
                verdict = ("agrees" if report.passed else "differs") if last else ""
                drift = f"{report.drift:.1e}" if last else ""
                table.add_row(report.target, phase, f"{error:.1e}", drift, verdict, end_section=last)
        print_table(table)
    failed = [report.target for report in reports if not report.passed]
    if failed:
        raise MnemoError(f"{', '.join(failed)} did not agree with the reference and nothing was written for it")
    message(f"written to {out}: {', '.join(report.target for report in reports)}")
