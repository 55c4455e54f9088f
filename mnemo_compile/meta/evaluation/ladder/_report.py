"""The evaluation of a ladder as tables and as files: eval.json, report.md and curves.png."""

import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from ....frozen import new_folder, replace_file, writing
from ..._drawing import png
from .._figures import geometric_mean
from .._report import CURVES, DATA, finite, labels, REPORT, table
from . import _plot
from ._ladder import LadderEvaluation, RungEvaluation
from ._law import FOURFOLD
from ._optimizers import BASELINES, MULTIPLIERS
from ._rungs import Half, Ladder

HALVES: tuple[Half, ...] = ("choose", "report")
COLUMNS = (
    "rung",
    "half",
    "parameters",
    "steps",
    "result",
    *(f"× {multiplier:g}" for multiplier in MULTIPLIERS),
    "law 9",
    *(f"{name}, at" for name in BASELINES),
    "over the best",
)


def rows(evaluation: LadderEvaluation) -> Iterable[tuple[str, ...]]:
    """One row per rung, under `COLUMNS`."""
    for rung in evaluation.rungs:
        yield (
            rung.rung,
            rung.half,
            f"{rung.parameters:,}",
            f"{rung.steps:,}",
            rung.unit,
            *(_result(rung, multiplier) for multiplier in MULTIPLIERS),
            _law(rung),
            *(_baseline(rung, name) for name in BASELINES),
            "–" if rung.ratio is None else f"{rung.ratio:.3f}" + ("" if rung.is_plain else " (not counted)"),
        )


def _result(rung: RungEvaluation, multiplier: float) -> str:
    if multiplier in rung.diverged:
        return "diverged"
    value = rung.results.get(multiplier)
    return "–" if value is None else "never" if math.isinf(value) else f"{value:.4g}"


def _law(rung: RungEvaluation) -> str:
    if rung.law is None:
        return "–"
    excess = "" if math.isinf(rung.law.excess) else f", {rung.law.excess:+.1%}"
    return f"{'holds' if rung.law.holds else 'broken'} (best {rung.law.best:g}{excess})"


def _baseline(rung: RungEvaluation, name: str) -> str:
    baseline = rung.baselines.get(name)
    if baseline is None:
        return "–"
    other = "" if baseline.unit == rung.unit else f" {baseline.unit}"
    return f"{baseline.result:.4g}{other}, {baseline.rate:g}"


def figures(evaluation: LadderEvaluation) -> dict[str, str]:
    """The figures of each half that was measured, in words."""
    return {key: value for half in HALVES for key, value in _figures_of(half, evaluation.half(half)).items()}


def _figures_of(half: Half, rungs: Sequence[RungEvaluation]) -> dict[str, str]:
    if not rungs:
        return {}
    name = {"choose": "choosing", "report": "reporting"}[half]
    found = {
        f"{name} rungs where law 9 holds": _share(rung.law and rung.law.holds for rung in rungs),
        f"{name} rungs where multiplier 4 is within 10 %": _share(
            rung.law and rung.law.excess_fourfold <= FOURFOLD for rung in rungs
        ),
        f"{name} rungs, result over the best of both baselines, geometric mean": _mean(
            (rung.rung, rung.ratio) for rung in rungs if rung.is_plain
        ),
    }
    for baseline in BASELINES:
        ratios = ((rung.rung, rung.baselines.get(baseline)) for rung in rungs if rung.is_plain)
        found[f"{name} rungs, result over {baseline}'s, geometric mean"] = _mean(
            (rung, result and result.ratio) for rung, result in ratios
        )
    diverged = [f"{rung.rung} × {multiplier:g}" for rung in rungs for multiplier in rung.diverged]
    found[f"{name} rungs, trainings that diverged"] = f"{len(diverged)}" + (f": {', '.join(diverged)}" * bool(diverged))
    return found


def _share(verdicts: Iterable[bool | None]) -> str:
    values = [value for value in verdicts if value is not None]
    return f"{sum(values)} of {len(values)}" if values else "–"


def _mean(ratios: Iterable[tuple[str, float | None]]) -> str:
    values = {rung: value for rung, value in ratios if value is not None}
    if not values:
        return "–"
    worst = max(values, key=lambda rung: values[rung])
    return f"{geometric_mean(list(values.values())):.3f} on {len(values)}; worst {values[worst]:.3f}, {worst}"


def as_data(evaluations: Sequence[LadderEvaluation], command: str) -> dict[str, Any]:
    """The content of eval.json, with null for what is not a finite number."""
    data = [
        evaluation.model_dump(mode="json")
        | {"figures": figures(evaluation)}
        | {"laws": {rung.rung: rung.law.holds for rung in evaluation.rungs if rung.law is not None}}
        | {"ratios": {rung.rung: rung.ratio for rung in evaluation.rungs}}
        for evaluation in evaluations
    ]
    return {"command": command, "evaluations": finite(data)}


def write_report(
    evaluations: Sequence[LadderEvaluation], ladder: Ladder, command: str, out: pathlib.Path, *, plots: bool = True
) -> None:
    """Makes a folder, and writes eval.json, report.md and, with plots, curves.png into it.

    Raises `MnemoError` where they cannot be written.
    """
    with writing(out), new_folder(out):
        data = json.dumps(as_data(evaluations, command), indent=1, allow_nan=False) + "\n"
        replace_file(out / DATA, data.encode())
        replace_file(out / REPORT, _markdown(evaluations, ladder, command).encode())
        if plots:
            figure = _plot.draw(dict(zip(labels(evaluations), evaluations, strict=True)))
            replace_file(out / CURVES, png(figure, dpi=100))


def _markdown(evaluations: Sequence[LadderEvaluation], ladder: Ladder, command: str) -> str:
    title = ", ".join(f"{evaluation.name}@{evaluation.version}" for evaluation in evaluations)
    lines = [f"# {title} on `{ladder.name}`", "", f"`{command}`", "", ladder.about, ""]
    for evaluation in evaluations:
        lines += [
            f"## {evaluation.name}@{evaluation.version}",
            "",
            f"Digest {evaluation.digest}, mnemo-compile {evaluation.compiler}, one seed per rung.",
            "",
            *(f"* **{optimizer.name}**: {optimizer.identity}." for optimizer in BASELINES.values()),
            "",
            "| figure | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in figures(evaluation).items()),
            "",
            *table(COLUMNS, rows(evaluation)),
        ]
    lines += [f"![result over the multiplier]({CURVES})", ""]
    return "\n".join(lines)
