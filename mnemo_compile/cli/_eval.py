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
    help="REF is a preset of meta-train or a TOML file; evaluate its cell before any meta-training.",
)
@click.option("--suite", default="valid", show_default=True, help="A suite of this package, or a TOML file.")
@click.option("--task", "tasks", multiple=True, help="Only this task of the suite; repeatable.")
@click.option("--seeds", type=click.IntRange(min=1), help="Runs of each task; by default the number in the suite.")
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
    """Evaluate optimizers on a suite of tasks, beside AdamW tuned for each task.

    Suites: train (tasks like those of meta-training), valid (to choose on), unseen (other data and networks), long (ten
    times the steps) and large (up to 1.8 million parameters). The evaluated optimizers know the number of
    steps, and nothing of them is tuned.

    \b
    Example:
      mnemo eval mnemosyne-base --suite valid --out eval
    """
    from .._refs import load
    from ..meta import keep_compiled_programs
    from ..meta.evaluation import (
        as_data,
        BASELINE_COLUMNS,
        baseline_rows,
        COLUMNS,
        evaluate as evaluate_cell,
        figures,
        GROUP_COLUMNS,
        group_rows,
        load_suite,
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
    evaluations = [evaluate_cell(cell, suite, seeds=seeds, tasks=tasks) for cell in frozen]
    if out is not None:
        write_report(evaluations, load_suite(suite), command, out)
        message(f"report.md, eval.json and curves.png are in {out}")
    if as_json:
        print_json(as_data(evaluations, command))
        return
    for evaluation in evaluations:
        title = f"{evaluation.name}@{evaluation.version} on {evaluation.suite}"
        _print(title, COLUMNS, rows(evaluation))
        _print("by kind", GROUP_COLUMNS, group_rows(evaluation))
        _print("beside the baselines", BASELINE_COLUMNS, baseline_rows(evaluation))
        print_facts(figures(evaluation))


def _print(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    import rich.table

    table = rich.table.Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    print_table(table)
