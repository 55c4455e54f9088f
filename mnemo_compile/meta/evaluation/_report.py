"""An evaluation as tables and as files: eval.json, report.md and curves.png."""

import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from ...frozen import new_folder, replace_file, writing
from .._drawing import png
from . import _curves
from ._evaluation import Evaluation, TaskEvaluation
from ._figures import Interval
from ._suites import Suite

DATA, REPORT, CURVES = "eval.json", "report.md", "curves.png"


class _Named(Protocol):
    """An evaluation of any kind."""

    name: str
    version: str
    digest: str


def labels(evaluations: Sequence[_Named]) -> list[str]:
    """The name of each, with its version and then its digest where the name alone does not tell it from the others."""
    forms = (
        lambda evaluation: evaluation.name,
        lambda evaluation: f"{evaluation.name}@{evaluation.version}",
        lambda evaluation: f"{evaluation.name}@{evaluation.version} {evaluation.digest[:12]}",
    )
    named = [[form(evaluation) for evaluation in evaluations] for form in forms]
    return [
        next((names[place] for names in named if names.count(names[place]) == 1), named[-1][place])
        for place in range(len(evaluations))
    ]


def beaten(ours: Evaluation, other: Evaluation) -> int:
    """On how many tasks the final training loss is below the other's."""
    finals = {task.task: task.final for task in other.tasks}
    return sum(task.final < finals[task.task] for task in ours.tasks)


def figures(evaluation: Evaluation) -> dict[str, str]:
    """The figures of a suite, in words."""
    tasks = evaluation.tasks
    worst = evaluation.worst
    return {
        "tasks that end below AdamW at 1e-3": f"{sum(task.beats_untuned for task in tasks)} of {len(tasks)}",
        "tasks that end at or below AdamW tuned for the task": f"{sum(task.won for task in tasks)} of {len(tasks)}",
        "speedup over tuned AdamW, geometric mean": _interval(evaluation.speedup, ".2f"),
        "validation loss against tuned AdamW, mean": _interval(evaluation.validation, "+.1%"),
        "mean rank by final training loss": f"{evaluation.mean_rank:.1f} of {max(task.ranked for task in tasks)}",
        "lowest speedup": f"{worst.speedup.value:.2f}, {worst.task}",
        "training loss over tuned AdamW's at the same step, highest": _highest(tasks),
        "runs that diverged": f"{evaluation.divergences} of {evaluation.runs}",
        "bytes of state per parameter": f"{evaluation.state_bytes:g}",
        "time of the reference step over optax.adamw's": f"{evaluation.step_time:.1f}",
    }


def _highest(tasks: Sequence[TaskEvaluation]) -> str:
    highest = max(tasks, key=lambda task: task.highest)
    return f"{highest.highest:.2f}, {highest.task}"


def _interval(interval: Interval, form: str) -> str:
    return f"{interval.value:{form}} ({interval.low:{form}} to {interval.high:{form}})"


COLUMNS = (
    "task",
    "parameters",
    "steps",
    "speedup",
    "training loss",
    "tuned AdamW",
    "at",
    "AdamW 1e-3",
    "validation",
    "accuracy",
    "rank",
)


def rows(evaluation: Evaluation) -> Iterable[tuple[str, ...]]:
    """One row per task, under `COLUMNS`."""
    for task in evaluation.tasks:
        accuracy = "–"
        if task.accuracy is not None and task.accuracy_tuned is not None:
            accuracy = f"{task.accuracy:.3f} ({task.accuracy - task.accuracy_tuned:+.3f})"
        yield (
            task.task,
            f"{task.parameters:,}",
            f"{task.steps:,}",
            _interval(task.speedup, ".2f") + ("" if task.won else " lost"),
            f"{task.final:.4g}" + (f", {task.diverged} diverged" if task.diverged else ""),
            f"{task.final_tuned:.4g}",
            task.setting_tuned,
            f"{task.final_untuned:.4g}",
            _interval(task.validation, "+.1%"),
            accuracy,
            f"{task.rank} of {task.ranked}",
        )


BASELINE_COLUMNS = ("baseline", "tasks", "its speedup", "the cell's", "the cell ends below it")


def baseline_rows(evaluation: Evaluation) -> Iterable[tuple[str, ...]]:
    """One row per baseline, under `BASELINE_COLUMNS`."""
    for each in evaluation.baselines:
        beaten = f"{each.beaten} of {each.tasks}"
        yield (each.baseline, f"{each.tasks}", f"{each.speedup:.2f}", f"{each.ours:.2f}", beaten)


GROUP_COLUMNS = ("kind", "tasks", "speedup", "at or below tuned AdamW")


def group_rows(evaluation: Evaluation) -> Iterable[tuple[str, ...]]:
    """One row per kind of task, and for all tasks, under `GROUP_COLUMNS`."""
    for each in evaluation.groups:
        yield (each.group, f"{each.tasks}", f"{each.speedup:.2f}", f"{each.won} of {each.tasks}")


def as_data(evaluations: Sequence[Evaluation], command: str) -> dict[str, Any]:
    """The content of eval.json, with null for what is not a finite number."""
    labelled = list(zip(labels(evaluations), evaluations, strict=True))
    data = [
        evaluation.model_dump(mode="json")
        | {"figures": figures(evaluation)}
        | {"groups": [group.model_dump() for group in evaluation.groups]}
        | {"beats": {label: beaten(evaluation, other) for label, other in labelled if other is not evaluation}}
        for evaluation in evaluations
    ]
    return {"command": command, "evaluations": finite(data)}


def finite(data: Any) -> Any:
    """The data with None for every number that is not finite."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def write_report(evaluations: Sequence[Evaluation], suite: Suite, command: str, out: pathlib.Path) -> None:
    """Makes a folder, and writes eval.json, report.md and curves.png into it.

    Raises `MnemoError` where they cannot be written.
    """
    with writing(out), new_folder(out):
        data = json.dumps(as_data(evaluations, command), indent=1, allow_nan=False) + "\n"
        replace_file(out / DATA, data.encode())
        replace_file(out / REPORT, _markdown(evaluations, suite, command).encode())
        figure = _curves.draw(dict(zip(labels(evaluations), evaluations, strict=True)), suite)
        replace_file(out / CURVES, png(figure, dpi=110))


def _markdown(evaluations: Sequence[Evaluation], suite: Suite, command: str) -> str:
    labelled = list(zip(labels(evaluations), evaluations, strict=True))
    title = ", ".join(label for label, _ in labelled)
    lines = [f"# {title} on `{suite.name}`", "", f"`{command}`", "", suite.about, ""]
    for evaluation in evaluations:
        lines += [
            f"## {evaluation.name}@{evaluation.version}",
            "",
            f"Digest {evaluation.digest}, mnemo-compile {evaluation.compiler}, {_seeds(evaluation.tasks)}. Intervals "
            f"hold 95 % of the resamplings of seeds, and of tasks for means over them.",
            "",
            "| figure | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in figures(evaluation).items()),
            *(
                f"| tasks that end below {label} | {beaten(evaluation, other)} of {len(evaluation.tasks)} |"
                for label, other in labelled
                if other is not evaluation
            ),
            "",
            *table(COLUMNS, rows(evaluation)),
            *table(GROUP_COLUMNS, group_rows(evaluation)),
            *table(BASELINE_COLUMNS, baseline_rows(evaluation)),
        ]
    lines += [f"![training curves]({CURVES})", ""]
    return "\n".join(lines)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown, and an empty one."""
    return [*(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)), ""]


def _seeds(tasks: Sequence[TaskEvaluation]) -> str:
    """How many seeds most tasks have, and which tasks have another number."""
    counts = [task.seeds for task in tasks]
    usual = max(counts, key=counts.count)
    others = [f", {task.seeds} on {task.task}" for task in tasks if task.seeds != usual]
    return f"{usual} seeds" + "".join(others)
