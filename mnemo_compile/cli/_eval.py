"""`mnemo eval`."""

import pathlib
import shlex
from collections.abc import Iterable, Sequence

import rich_click as click

from ._console import json_option, message, print_facts, print_json, print_table, untrained, zoo_option


@click.command(name="eval")
@click.argument("refs", metavar="REF...", nargs=-1, required=True)
@click.option(
    "--preset",
    "is_preset",
    is_flag=True,
    help="REF is a preset of meta-train or a TOML file: its cell as it is before it has learned anything.",
)
@click.option("--suite", default="valid", show_default=True, help="A suite that ships here, or a TOML file.")
@click.option("--task", "tasks", multiple=True, help="Only this task of the suite; repeatable.")
@click.option("--seeds", type=click.IntRange(min=1), help="Runs of each task; by default what the suite says of each.")
@click.option(
    "--out",
    type=click.Path(path_type=pathlib.Path),
    help="Write eval.json, report.md and curves.png into this folder.",
)
@zoo_option
@json_option
def evaluate(
    refs: tuple[str, ...],
    is_preset: bool,
    suite: str,
    tasks: tuple[str, ...],
    seeds: int | None,
    out: pathlib.Path | None,
    location: str | None,
    as_json: bool,
) -> None:
    """Judge optimizers on a suite of tasks, beside AdamW tuned for each task.

    Suites: train and valid (to choose by), unseen (other data and networks), long (ten times the steps) and large (up
    to 1.8 million parameters). Nothing of the judged optimizers is tuned; they are told the number of steps.

    \b
    Example:
      mnemo eval mnemosyne-base --suite valid --out eval
    """
    from .._refs import load
    from ..meta import keep_compiled_programs
    from ..meta.evaluation import (
        as_data,
        COLUMNS,
        evaluate as judge,
        figures,
        load_suite,
        OPPONENT_COLUMNS,
        opponent_rows,
        rows,
        write_report,
    )

    frozen = [untrained(ref) if is_preset else load(ref, location) for ref in refs]
    options = [
        *(["--preset"] if is_preset else []),
        "--suite",
        suite,
        *(part for task in tasks for part in ("--task", task)),
        *(["--seeds", str(seeds)] if seeds is not None else []),
        *(["--zoo", location] if location is not None else []),
    ]
    command = shlex.join(["mnemo", "eval", *refs, *options])
    keep_compiled_programs()
    judgements = [judge(cell, suite, seeds=seeds, tasks=tasks) for cell in frozen]
    if out is not None:
        write_report(judgements, load_suite(suite), command, out)
        message(f"report.md, eval.json and curves.png are in {out}")
    if as_json:
        print_json(as_data(judgements, command))
        return
    for judgement in judgements:
        title = f"{judgement.name}@{judgement.version} on {judgement.suite}"
        _print(title, COLUMNS, rows(judgement))
        _print("beside its opponents", OPPONENT_COLUMNS, opponent_rows(judgement))
        print_facts(figures(judgement))


def _print(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    import rich.table

    table = rich.table.Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    print_table(table)
