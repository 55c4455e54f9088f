"""What the commands share: options, tables and JSON."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import rich.console
import rich.markup
import rich.table
import rich_click as click

json_option: Callable[..., Any] = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
zoo_option: Callable[..., Any] = click.option(
    "--zoo", "location", metavar="URL|FOLDER", help="The zoo; by default that of this package."
)


def print_json(data: Any) -> None:
    """Data on stdout."""
    print(json.dumps(data, indent=2))


def message(text: str) -> None:
    """A message on stderr."""
    print(text, file=sys.stderr)


def print_table(table: rich.table.Table) -> None:
    """A table on stdout, plain and never cut where that is not a terminal."""
    width = None if sys.stdout.isatty() else 400
    rich.console.Console(width=width, highlight=False, emoji=False).print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Names and values in two columns."""
    table = rich.table.Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(rich.markup.escape(name), rich.markup.escape(str(value)))
    print_table(table)
