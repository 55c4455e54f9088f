"""An evaluation on a ladder: complete, resumed, and as files."""

import json
import math
import pathlib
from typing import Any

import pytest

from mnemo_compile.cli import main
from mnemo_compile.errors import UsageError
from mnemo_compile.frozen import FrozenCell, save
from mnemo_compile.meta.evaluation._json_file import read_records
from mnemo_compile.meta.evaluation.ladder import (
    _store,
    as_data,
    evaluate_ladder,
    figures,
    Ladder,
    LadderEvaluation,
    load_ladder,
    MULTIPLIERS,
    rows,
    write_report,
)
from mnemo_compile.meta.evaluation.ladder.__main__ import main as measure_baselines
from mnemo_compile.meta.evaluation.ladder._optimizers import BASELINES, of_cell
from mnemo_compile.meta.evaluation.ladder._plot import draw, STYLES
from mnemo_compile.meta.evaluation.ladder._training import Run

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def baselines(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured on one of the rungs."""
    monkeypatch.setattr("sys.argv", ["ladder", str(path), "--rung", "line-wide"])
    measure_baselines()


def test_a_ladder_is_measured_once(path: pathlib.Path, adam: FrozenCell, baselines: None, capsys: Capture) -> None:
    seen: list[LadderEvaluation] = []
    evaluation = evaluate_ladder(adam, str(path), after=seen.append)
    assert [rung.rung for rung in evaluation.rungs] == ["line", "line-wide", "text"]
    assert len(seen) == 3 * len(MULTIPLIERS) and seen[-1] == evaluation
    assert capsys.readouterr().err.count("\n") == 15
    assert all(set(rung.results) == set(MULTIPLIERS) and rung.law is not None for rung in evaluation.rungs)
    assert [rung.unit for rung in evaluation.rungs] == ["training loss", "training loss", "validation loss"]
    wide, text = evaluation.rungs[1:]
    assert set(wide.baselines) == {"adamw", "muon"} and not text.baselines and text.ratio is None
    assert wide.ratio == max(baseline.ratio or 0 for baseline in wide.baselines.values())
    assert wide.ratio == pytest.approx(wide.results[1] / min(b.result for b in wide.baselines.values()), rel=1e-4)
    # The second time nothing is measured.
    assert evaluate_ladder(adam, str(path)) == evaluation
    assert capsys.readouterr().err == ""


def test_a_part_of_a_ladder(path: pathlib.Path, adam: FrozenCell, capsys: Capture) -> None:
    (line,) = evaluate_ladder(adam, str(path), rungs="choose", multipliers=[1.0]).rungs
    assert set(line.results) == {1.0} and line.law is None and line.ratio is None
    # Those that are there already stay, and the others are added.
    (again,) = evaluate_ladder(adam, str(path), names=["line"]).rungs
    assert again.results[1.0] == line.results[1.0] and set(again.results) == set(MULTIPLIERS)
    assert capsys.readouterr().err.count("\n") == 5
    with pytest.raises(UsageError, match="no rung"):
        evaluate_ladder(adam, str(path), names=["square"])


def test_the_middle_comes_first_where_time_is_limited(path: pathlib.Path, adam: FrozenCell, capsys: Capture) -> None:
    evaluate_ladder(adam, str(path), rungs="report", multipliers=[0.5, 1, 2], minutes=60)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["line-wide", "text"] * 3
    assert all("at 1:" in line for line in lines[:2])
    assert not evaluate_ladder(adam, str(path), rungs="choose", minutes=1e-9).rungs
    assert "left out" in capsys.readouterr().err


def test_results_count_for_the_code_and_the_rung_that_were_run(
    ladder: Ladder, adam: FrozenCell, tmp_path: pathlib.Path
) -> None:
    rung, path = ladder.rungs[0], tmp_path / "kept" / "cell.json"
    cell = of_cell(adam.cell(), adam.digest, (1.0,))
    run = Run(setting=1.0, curve=[0.5] * 100, initial=1, highest=1, validation_loss=None, accuracy=None, seconds=1)
    _store.keep(path, rung, cell, run)
    _store.keep(path, rung, cell, run.model_copy(update={"setting": 0.5}))
    assert [each.setting for each in _store.current(path, rung, cell)] == [0.5, 1.0]
    assert not _store.current(path, rung, cell._replace(identity="other"))
    assert not _store.current(path, rung.model_copy(update={"seed": 55}), cell)
    _store.keep(path, rung, cell._replace(identity="other"), run)
    assert [each.setting for each in _store.current(path, rung, cell._replace(identity="other"))] == [1.0]


def test_figures_and_files(path: pathlib.Path, ladder: Ladder, adam: FrozenCell, baselines: None) -> None:
    evaluation = evaluate_ladder(adam, str(path))
    shown = figures(evaluation)
    assert {name.split()[0] for name in shown} == {"choosing", "reporting"}
    (ratio,) = [rung.ratio for rung in evaluation.rungs if rung.ratio is not None]
    over = shown["reporting rungs, result over the best of both baselines, geometric mean"]
    assert over == f"{ratio:.3f} on 1; worst {ratio:.3f}, line-wide"
    holds = sum(bool(rung.law and rung.law.holds) for rung in evaluation.half("report"))
    assert shown["reporting rungs where law 9 holds"] == f"{holds} of 2"
    assert all(len(row) == len(next(iter(rows(evaluation)))) for row in rows(evaluation))
    write_report([evaluation], ladder, "mnemo eval", path.parent / "out")
    assert {file.name for file in (path.parent / "out").iterdir()} == {"eval.json", "report.md", "curves.png"}
    assert json.loads((path.parent / "out" / "eval.json").read_text()) == as_data([evaluation], "mnemo eval")
    figure = draw({"one": evaluation, "other": evaluation})
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(named) == ["adamw", "muon", "one", "other"]
    assert {line.get_label() for axes in figure.axes for line in axes.lines} == set(named)
    assert set(STYLES) == set(BASELINES)


def test_numbers_that_are_not_finite_are_written_as_null(path: pathlib.Path, adam: FrozenCell) -> None:
    evaluation = evaluate_ladder(adam, str(path), names=["text"], multipliers=[1e30])
    assert math.isinf(evaluation.rungs[0].results[1e30]) and evaluation.rungs[0].diverged == [1e30]
    text = json.dumps(as_data([evaluation], ""), allow_nan=False)
    assert json.loads(text)["evaluations"][0]["rungs"][0]["results"] == {"1e+30": None}


def test_rungs_where_the_cell_knows_less_are_not_counted(path: pathlib.Path, adam: FrozenCell) -> None:
    path.write_text(path.read_text().replace("seed = 2", 'seed = 2\noptions = { horizon = "unknown" }'))
    evaluation = evaluate_ladder(adam, str(path), names=["line-wide"], multipliers=[1.0])
    assert not evaluation.rungs[0].is_plain
    assert figures(evaluation)["reporting rungs, result over the best of both baselines, geometric mean"] == "–"


def test_the_command(path: pathlib.Path, adam: FrozenCell, tmp_path: pathlib.Path, capsys: Capture) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "out"
    save(adam, bundle)

    def run(*options: Any) -> tuple[int, Any]:
        code = main(["eval", str(bundle), *map(str, options)])
        return code, capsys.readouterr()

    arguments = ("--suite", path, "--rungs", "choose", "--multipliers", "1,2", "--out", out)
    code, printed = run(*arguments, "--json")
    (evaluation,) = json.loads(printed.out)["evaluations"]
    assert code == 0 and set(evaluation["rungs"][0]["results"]) == {"1.0", "2.0"}
    assert "--rungs choose --multipliers 1,2" in (out / "report.md").read_text()
    assert "law 9" in run(*arguments)[1].out
    assert run("--suite", path, "--multipliers", "0")[0] == 2
    assert run("--suite", path, "--seeds", "3")[0] == 2
    code, printed = run("--suite", "valid", "--rungs", "choose")
    assert code == 2 and "--rungs is for --suite ladder" in printed.err


@pytest.mark.parametrize("rungs", ["all", "large"])
def test_the_shipped_baselines_speak_of_the_rungs_of_today(rungs: str) -> None:
    ladder = load_ladder("ladder", rungs)
    of_today = {rung.name: rung for rung in ladder.rungs}
    for name, stored in read_records(_store.baselines_path(ladder), _store.RungRuns).items():
        assert stored.digest == of_today[name].digest, name
        for baseline, measured in stored.optimizers.items():
            assert measured.identity == BASELINES[baseline].identity
            assert {run.setting for run in measured.runs} <= set(BASELINES[baseline].settings)
