"""`mnemo eval --suite ladder`."""

import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple, TYPE_CHECKING

from ..errors import UsageError
from ._console import message, print_facts, print_json, print_rows

if TYPE_CHECKING:
    from ..frozen import FrozenCell


class LadderChoice(NamedTuple):
    """What of a ladder is run."""

    ladder: str
    rungs: str
    names: Sequence[str]
    multipliers: tuple[float, ...] | None
    """None for all."""
    minutes: float | None
    """None without a limit."""


def parse_multipliers(text: str | None) -> tuple[float, ...] | None:
    """Numbers above zero from a list with commas."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(math.isfinite(value) and value > 0 for value in values):
        raise UsageError(f"--multipliers takes numbers above zero with commas between them, not '{text}'")
    return values


def evaluate_on_ladder(
    cells: "Sequence[FrozenCell]", choice: LadderChoice, command: str, out: pathlib.Path | None, as_json: bool
) -> None:
    """Evaluates cells, prints tables, and writes the report anew after each training."""
    from ..meta.evaluation.ladder import (
        as_data,
        COLUMNS,
        evaluate_ladder,
        figures,
        LadderEvaluation,
        load_ladder,
        MULTIPLIERS,
        rows,
        write_report,
    )

    ladder = load_ladder(choice.ladder, choice.rungs)
    finished: list[LadderEvaluation] = []

    def write(evaluation: LadderEvaluation) -> None:
        if out is not None:
            write_report([*finished, evaluation], ladder, command, out, plots=False)

    for cell in cells:
        evaluation = evaluate_ladder(
            cell,
            choice.ladder,
            rungs=choice.rungs,
            names=choice.names,
            multipliers=choice.multipliers or MULTIPLIERS,
            minutes=choice.minutes or math.inf,
            after=write,
        )
        finished.append(evaluation)
    if out is not None:
        write_report(finished, ladder, command, out)
        message(f"report.md, eval.json and curves.png are in {out}")
    if as_json:
        print_json(as_data(finished, command))
        return
    for evaluation in finished:
        title = f"{evaluation.name}@{evaluation.version} on {evaluation.ladder}"
        print_rows(title, COLUMNS, rows(evaluation))
        print_facts(figures(evaluation))
