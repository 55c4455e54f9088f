"""An evaluation as files, from the command line."""

import json
import pathlib
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import pytest

from mnemo_compile.cell import cell_config
from mnemo_compile.cli import main
from mnemo_compile.frozen import freeze, FrozenCell, save
from mnemo_compile.meta.evaluation import evaluate, load_suite
from mnemo_compile.meta.evaluation._baselines import BASELINES
from mnemo_compile.meta.evaluation._curves import draw, STYLES
from mnemo_compile.meta.evaluation._report import as_data, labels


def test_the_command_line_writes_what_it_prints(
    suite: str, freeze_small: Callable[..., FrozenCell], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adam = freeze(cell_config({"kind": "adam"}).build(), name="plain-adam", version="1.0.0")
    evaluation = evaluate(adam, suite, seeds=2, tasks=["line"])
    (task,), (untuned,) = evaluation.tasks, evaluation.baselines
    for frozen in (adam, freeze_small()):
        save(frozen, tmp_path / frozen.name)
    refs = [str(tmp_path / "plain-adam"), str(tmp_path / "small-cell")]
    out = tmp_path / "out"
    code = main(["eval", *refs, "--suite", suite, "--task", "line", "--seeds", "2", "--json", "--out", str(out)])
    assert code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "eval.json").read_text())
    first, second = printed["evaluations"]
    assert first["tasks"][0]["final"] == task.final
    assert first["beats"] == {"small-cell": int(task.final < second["tasks"][0]["final"])}
    report = (out / "report.md").read_text()
    assert adam.digest in report and "mnemo eval" in report and "| line |" in report
    assert f"| adamw-1e-3 | 1 | {untuned.speedup:.2f} | {untuned.ours:.2f} | {untuned.beaten} of 1 |" in report
    assert (
        f"| other | 1 | {task.speedup.value:.2f} | {int(task.won)} of 1 |" in report and "after a public" not in report
    )
    assert [group["group"] for group in first["groups"]] == ["other", "all"]
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_legend_names_every_line(suite: str) -> None:
    adam = freeze(cell_config({"kind": "adam"}).build(), name="plain-adam", version="1.0.0")
    one = evaluate(adam, suite, seeds=1)
    evaluations = {"first": one, "second": one}
    figure = draw(evaluations, load_suite(suite))
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert sorted(named) == sorted({"first", "second", "tuned AdamW", "adamw-1e-3"})
    assert {axes.get_title() for axes in figure.axes if axes.axison} == {"line", "again"}
    for axes in figure.axes:
        assert {line.get_label() for line in axes.lines} <= set(named)
    # No two baselines look the same.
    styles = [(style["color"], str(style.get("linestyle"))) for style in STYLES.values()]
    assert set(STYLES) == set(BASELINES) and len(set(styles)) == len(styles)


def test_a_cell_that_diverges_is_last_and_its_json_has_null_for_what_is_not_finite(
    suite: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {"plain-adam": 1e-3, "wild-adam": 1e38}
    for name, step in steps.items():
        cell = eqx.tree_at(lambda adam: adam.learning_rate, cell_config({"kind": "adam"}).build(), jnp.array(step))
        save(freeze(cell, name=name, version="1.0.0"), tmp_path / name)
    options = ["--suite", suite, "--task", "line", "--seeds", "2", "--json", "--out", str(tmp_path / "out")]
    assert main(["eval", *(str(tmp_path / name) for name in steps), *options]) == 0

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    printed = json.loads(capsys.readouterr().out, parse_constant=refused)
    plain, wild = printed["evaluations"]
    (task,) = wild["tasks"]
    assert task["diverged"] == 2 and task["final"] is None and task["validation"][0] is None
    assert task["rank"] == task["ranked"] == 3
    assert (plain["beats"], wild["beats"]) == ({"wild-adam": 1}, {"plain-adam": 0})
    assert wild["figures"]["tasks that end at or below AdamW tuned for the task"] == "0 of 1"
    assert wild["figures"]["validation loss against tuned AdamW, mean"].startswith("+inf%")
    assert wild["figures"]["training loss over tuned AdamW's at the same step, highest"] == "inf, line"
    assert "inf, 2 diverged" in (tmp_path / "out/report.md").read_text()


def test_tasks_are_grouped_by_kind_and_by_whose_they_are(suite: str) -> None:
    adam = freeze(cell_config({"kind": "adam"}).build(), name="plain-adam", version="1.0.0")
    evaluation = evaluate(adam, suite, seeds=1)
    line, again = evaluation.tasks
    assert [group.group for group in evaluation.groups] == ["fine-tuning", "other", "after a publication", "all"]
    tuning, other, published, everything = evaluation.groups
    assert (other.speedup, other.won) == (pytest.approx(line.speedup.value), int(line.won))
    assert tuning.speedup == published.speedup == pytest.approx(again.speedup.value)
    assert everything.tasks == 2 and everything.won == line.won + again.won
    assert everything.speedup == pytest.approx(evaluation.speedup.value)


def test_cells_of_one_name_have_different_labels(suite: str) -> None:
    adam = freeze(cell_config({"kind": "adam"}).build(), name="plain-adam", version="1.0.0")
    one = evaluate(adam, suite, seeds=1, tasks=["line"])
    others = [{"version": "1.1.0"}, {"version": "1.1.0", "digest": "f" * 64}, {"name": "other"}]
    evaluations = [one, *(one.model_copy(update=change) for change in others)]
    expected = ["plain-adam@1.0.0", f"plain-adam@1.1.0 {adam.digest[:12]}", "plain-adam@1.1.0 ffffffffffff", "other"]
    assert labels(evaluations) == expected and labels(evaluations[:1]) == ["plain-adam"]
    data = as_data(evaluations, "command")["evaluations"]
    assert [set(each["beats"]) for each in data] == [set(expected) - {label} for label in expected]
