"""What the commands share: options, tables and JSON."""

import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TYPE_CHECKING

import rich.console
import rich.markup
import rich.table
import rich_click as click

from .._suggestions import did_you_mean

if TYPE_CHECKING:
    from ..frozen import FrozenCell
    from ..verify import VerificationReport

json_option: Callable[..., Any] = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
zoo_option: Callable[..., Any] = click.option(
    "--zoo", "location", metavar="URL|FOLDER", help="The zoo; the one in this package by default."
)

_UNLIMITED = 1 << 16
"""More columns than any table has."""


class Choice(click.Choice):
    """A choice whose error also names what is nearest to a word."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        return super().get_invalid_choice_message(value, ctx).rstrip(".") + did_you_mean(str(value), self.choices)


def print_json(data: Any) -> None:
    """Prints data on standard output."""
    print(json.dumps(data, indent=2))


def message(text: str) -> None:
    """Prints a message on standard error."""
    print(text, file=sys.stderr)


def print_table(table: rich.table.Table) -> None:
    """Prints a table on standard output. Where that is not a terminal, it has no styles, borders and limit of width."""
    if sys.stdout.isatty():
        rich.console.Console(highlight=False, emoji=False).print(table)
        return
    table.box, table.pad_edge, table.title_justify = None, False, "left"
    console = rich.console.Console(file=io.StringIO(), width=_UNLIMITED, highlight=False, emoji=False)
    with console.capture() as printed:
        console.print(table)
    # Every cell of a table is as wide as its column, the last one too.
    print(*(line.rstrip() for line in printed.get().splitlines()), sep="\n")


def print_rows(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table with a title."""
    table = rich.table.Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    print_table(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Prints names and values in two columns."""
    table = rich.table.Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(rich.markup.escape(name), rich.markup.escape(str(value)))
    print_table(table)


def print_reports(reports: "Sequence[VerificationReport]", as_json: bool) -> None:
    """Prints how exports compare with their cell."""
    if as_json:
        print_json([report.model_dump(mode="json") | {"passed": report.passed} for report in reports])
        return
    table = rich.table.Table("target", "phase", "largest relative error", "drift at the end", "")
    for report in reports:
        for phase, error in [*report.phases.items(), ("step", report.step_error)]:
            last = phase == "step"
            verdict = ("agrees" if report.passed else "differs") if last else ""
            drift = f"{report.drift:.1e}" if last else ""
            table.add_row(report.target, phase, f"{error:.1e}", drift, verdict, end_section=last)
    print_table(table)


def untrained(preset: str) -> "FrozenCell":
    """The cell of a preset or a TOML file, before meta-training."""
    from ..frozen import freeze
    from ..meta import load_config

    config = load_config(preset)
    return freeze(config.cell.build(), name=config.preset.lower().replace("_", "-"), version="0.0.0")
