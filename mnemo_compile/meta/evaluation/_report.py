"""An evaluation as files: eval.json, report.md and curves.png."""

import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...frozen import writing

from ._evaluate import baselines, Judgement, TaskJudgement, TUNED
from ._judgement import Interval
from ._suites import Suite

DATA, REPORT, CURVES = "eval.json", "report.md", "curves.png"


def labels(judgements: Sequence[Judgement]) -> list[str]:
    """Of each its name, with its version and then its digest where that alone tells it from others."""
    forms = (
        lambda judgement: judgement.name,
        lambda judgement: f"{judgement.name}@{judgement.version}",
        lambda judgement: f"{judgement.name}@{judgement.version} {judgement.digest[:12]}",
    )
    told = [[form(judgement) for judgement in judgements] for form in forms]
    return [
        next((named[place] for named in told if named.count(named[place]) == 1), told[-1][place])
        for place in range(len(judgements))
    ]


def beaten(ours: Judgement, other: Judgement) -> int:
    """Tasks on which the final training loss is below the other's."""
    finals = {task.task: task.final for task in other.tasks}
    return sum(task.final < finals[task.task] for task in ours.tasks)


def figures(judgement: Judgement) -> dict[str, str]:
    """The figures of a suite, in words."""
    tasks = judgement.tasks
    worst = judgement.worst
    return {
        "tasks that end below AdamW at 1e-3": f"{sum(task.beats_plain for task in tasks)} of {len(tasks)}",
        "tasks that end at or below AdamW tuned for the task": f"{sum(task.won for task in tasks)} of {len(tasks)}",
        "speedup over tuned AdamW, geometric mean": _interval(judgement.speedup, ".2f"),
        "validation loss against tuned AdamW, mean": _interval(judgement.held_out, "+.1%"),
        "mean rank by final training loss": f"{judgement.mean_rank:.1f} of {max(task.ranked for task in tasks)}",
        "lowest speedup": f"{worst.speedup.value:.2f}, {worst.task}",
        "training loss over tuned AdamW's at the same step, highest": _highest(tasks),
        "runs that diverged": f"{judgement.divergences} of {judgement.runs}",
        "bytes of state a parameter": f"{judgement.state_bytes:g}",
        "time of the reference step over optax.adamw's": f"{judgement.step_time:.1f}",
    }


def _highest(tasks: Sequence[TaskJudgement]) -> str:
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


def rows(judgement: Judgement) -> Iterable[tuple[str, ...]]:
    """A row a task, under `COLUMNS`."""
    for task in judgement.tasks:
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
            f"{task.final_plain:.4g}",
            _interval(task.held_out, "+.1%"),
            accuracy,
            f"{task.rank} of {task.ranked}",
        )


OPPONENT_COLUMNS = ("opponent", "tasks", "its speedup", "the cell's", "the cell ends below it")


def opponent_rows(judgement: Judgement) -> Iterable[tuple[str, ...]]:
    """A row an opponent, under `OPPONENT_COLUMNS`."""
    for each in judgement.opponents:
        beaten = f"{each.beaten} of {each.tasks}"
        yield (each.opponent, f"{each.tasks}", f"{each.speedup:.2f}", f"{each.ours:.2f}", beaten)


def as_data(judgements: Sequence[Judgement], command: str) -> dict[str, Any]:
    """The content of eval.json; null for what is not a finite number."""
    named = list(zip(labels(judgements), judgements, strict=True))
    data = [
        judgement.model_dump(mode="json")
        | {"figures": figures(judgement)}
        | {"beats": {label: beaten(judgement, other) for label, other in named if other is not judgement}}
        for judgement in judgements
    ]
    return {"command": command, "evaluations": _finite(data)}


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def write_report(judgements: Sequence[Judgement], suite: Suite, command: str, out: pathlib.Path) -> None:
    """Writes eval.json, report.md and curves.png into a folder, which is made.

    Raises `MnemoError` where it cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / DATA).write_text(
            json.dumps(as_data(judgements, command), indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
        (out / REPORT).write_text(_markdown(judgements, suite, command), encoding="utf-8")
        _draw(judgements, suite, out / CURVES)


def _markdown(judgements: Sequence[Judgement], suite: Suite, command: str) -> str:
    named = list(zip(labels(judgements), judgements, strict=True))
    lines = [f"# {', '.join(label for label, _ in named)} on `{suite.name}`", "", f"`{command}`", "", suite.about, ""]
    for judgement in judgements:
        lines += [
            f"## {judgement.name}@{judgement.version}",
            "",
            f"Digest {judgement.digest}, mnemo-compile {judgement.compiler}, {_seeds(judgement.tasks)}. Intervals "
            f"hold 95 % of the resamplings of seeds, and of tasks for means over them.{_other_data(judgement.tasks)}",
            "",
            "| figure | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in figures(judgement).items()),
            *(
                f"| tasks that end below {label} | {beaten(judgement, other)} of {len(judgement.tasks)} |"
                for label, other in named
                if other is not judgement
            ),
            "",
            *_table(COLUMNS, rows(judgement)),
            *_table(OPPONENT_COLUMNS, opponent_rows(judgement)),
        ]
    lines += [f"![training curves]({CURVES})", ""]
    return "\n".join(lines)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [*(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)), ""]


def _seeds(tasks: Sequence[TaskJudgement]) -> str:
    """How many seeds most tasks have, and which have others."""
    counts = [task.seeds for task in tasks]
    usual = max(counts, key=counts.count)
    others = [f", {task.seeds} on {task.task}" for task in tasks if task.seeds != usual]
    return f"{usual} seeds" + "".join(others)


def _other_data(tasks: Sequence[TaskJudgement]) -> str:
    """Which tasks have other data than their baselines, in a sentence; nothing where all have the same."""
    names = [task.task for task in tasks if not task.same_data]
    return f" The data of {', '.join(names)} are not those that the baselines were measured on." if names else ""


def _draw(judgements: Sequence[Judgement], suite: Suite, path: pathlib.Path) -> None:
    """Training loss over the steps: a panel a task, the opponents that have baselines in grey."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    named = {task.name: task for task in suite.tasks}
    tasks = judgements[0].tasks
    columns = min(4, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(4 * columns, 3 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    for panel, judged in zip(panels, tasks, strict=False):
        name, task = judged.task, named[judged.task]
        for opponent, result in sorted(baselines(suite, task, judged.seeds).items()):
            tuned = opponent == TUNED
            style = {"color": "black" if tuned else "0.75", "linewidth": 1.5 if tuned else 0.8}
            _line(panel, task.steps, result.curves, label="tuned AdamW" if tuned else "_", **style)
        for place, (label, judgement) in enumerate(zip(labels(judgements), judgements, strict=True)):
            curves = next(each.curves for each in judgement.tasks if each.task == name)
            _line(panel, task.steps, curves, label=label, color=f"C{place}", linewidth=1.5)
        panel.set(title=name, xlabel="step", ylabel="training loss")
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def _line(panel: Any, steps: int, curves: Sequence[Sequence[float | None]], **style: Any) -> None:
    """The mean over seeds, on a logarithmic axis where all of it is above zero."""
    mean = np.array(curves, np.float64).mean(axis=0)
    places = (np.arange(len(mean)) + 0.5) * steps / len(mean)
    panel.plot(places, mean, **style)
    if np.nanmin(mean) > 0:
        panel.set_yscale("log")
