"""`mnemo eval`."""

import pathlib
import shlex

import rich_click as click

from ..errors import UsageError
from ._console import Choice, json_option, message, print_facts, print_json, print_rows, untrained, zoo_option
from ._eval_ladder import evaluate_on_ladder, LadderChoice, parse_multipliers


@click.command(name="eval")
@click.argument("refs", metavar="REF...", nargs=-1, required=True)
@click.option(
    "--preset",
    "is_preset",
    is_flag=True,
    help="REF is a preset of meta-train or a TOML file; evaluate its cell before any meta-training.",
)
@click.option(
    "--suite", default="valid", show_default=True, help="A suite of this package, the ladder, or a TOML file."
)
@click.option("--task", "tasks", multiple=True, help="Only this task of the suite, or rung of the ladder; repeatable.")
@click.option(
    "--rungs",
    type=Choice(("choose", "report", "all", "large")),
    help="Of the ladder: the half to choose on, the half that only reports, both (the default), or the large networks.",
)
@click.option(
    "--multipliers",
    metavar="M,M…",
    help="Of the step, on the ladder; by default 0.25,0.5,1,2,4. Law 9 needs all of these.",
)
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), help="On the ladder: begin no training that ends later."
)
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
    rungs: str | None,
    multipliers: str | None,
    minutes: float | None,
    seeds: int | None,
    out: pathlib.Path | None,
    location: str | None,
    as_json: bool,
) -> None:
    """Evaluate optimizers on a suite of tasks, beside AdamW tuned for each task.

    Suites: train (tasks like those of meta-training), valid (to choose on), unseen (other data and networks), long (ten
    times the steps) and large (up to 1.8 million parameters). The evaluated optimizers know the number of
    steps, and nothing of them is tuned. A call that is stopped keeps its finished tasks, and the same command goes on
    from them.

    The suite ladder changes one thing at a time (width, depth, horizon, batch, initialisation) and asks whether one
    step size holds. Each of its trainings is kept as it comes, and the same command goes on where it stopped.

    \b
    Example:
      mnemo eval mnemosyne-base --suite valid --out eval
      mnemo eval mnemosyne-base --suite ladder --rungs report --out ladder
    """
    from .._refs import load
    from ..frozen import check_writable
    from ..meta import keep_compiled_programs
    from ..meta.evaluation import (
        as_data,
        BASELINE_COLUMNS,
        baseline_rows,
        COLUMNS,
        evaluate_all,
        Evaluation,
        figures,
        GROUP_COLUMNS,
        group_rows,
        load_suite,
        rows,
        write_report,
    )
    from ..meta.evaluation.ladder import is_ladder

    if out is not None:
        check_writable(out)
    frozen = [untrained(ref) if is_preset else load(ref, location) for ref in refs]
    options = [
        *(["--preset"] if is_preset else []),
        "--suite",
        suite,
        *(part for task in tasks for part in ("--task", task)),
        *(["--rungs", rungs] if rungs is not None else []),
        *(["--multipliers", multipliers] if multipliers is not None else []),
        *(["--seeds", str(seeds)] if seeds is not None else []),
        *(["--zoo", location] if location is not None else []),
    ]
    command = shlex.join(["mnemo", "eval", *refs, *options])
    keep_compiled_programs()
    if is_ladder(suite):
        if seeds is not None:
            raise UsageError("a rung of the ladder has one seed; leave out --seeds")
        choice = LadderChoice(suite, rungs or "all", tasks, parse_multipliers(multipliers), minutes)
        evaluate_on_ladder(frozen, choice, command, out, as_json)
        return
    for option, value in (("--rungs", rungs), ("--multipliers", multipliers), ("--minutes", minutes)):
        if value is not None:
            raise UsageError(f"{option} is for --suite ladder")

    def write(evaluations: list[Evaluation]) -> None:
        if out is not None:
            write_report(evaluations, load_suite(suite), command, out)
            message(f"report.md, eval.json and curves.png are in {out}")

    evaluations = evaluate_all(frozen, suite, seeds=seeds, tasks=tasks, then=write)
    if as_json:
        print_json(as_data(evaluations, command))
        return
    for evaluation in evaluations:
        title = f"{evaluation.name}@{evaluation.version} on {evaluation.suite}"
        print_rows(title, COLUMNS, rows(evaluation))
        print_rows("by kind", GROUP_COLUMNS, group_rows(evaluation))
        print_rows("beside the baselines", BASELINE_COLUMNS, baseline_rows(evaluation))
        print_facts(figures(evaluation))
