"""An evaluation says what a training does."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from mnemo_compile.cell import cell_config
from mnemo_compile.errors import UsageError
from mnemo_compile.frozen import freeze, FrozenCell
from mnemo_compile.meta.evaluation import _store, evaluate, load_suite
from mnemo_compile.meta.evaluation.__main__ import main as measure_baselines
from mnemo_compile.meta.evaluation._baselines import TUNED, UNTUNED
from mnemo_compile.meta.evaluation._report import _seeds


@pytest.fixture
def adam() -> FrozenCell:
    return freeze(cell_config({"kind": "adam"}).build(), name="plain-adam", version="1.0.0")


def test_an_evaluation_says_what_was_trained(suite: str, adam: FrozenCell, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = evaluate(adam, suite, seeds=2, tasks=["line"])
    (task,) = evaluation.tasks
    assert (task.task, task.parameters, task.steps, task.ranked) == ("line", 15, 100, 3)
    # Adam at its prior step is what AdamW at 1e-3 is, and worse than one that was tuned.
    assert task.final == pytest.approx(task.final_untuned, rel=0.2)
    assert not task.won and task.speedup.value < 1 and evaluation.divergences == 0
    assert evaluation.digest == adam.digest and evaluation.state_bytes == 8
    # The one baseline beside tuned AdamW is AdamW at 1e-3, which is no faster.
    (untuned,) = evaluation.baselines
    assert (untuned.baseline, untuned.tasks, untuned.beaten) == (UNTUNED, 1, int(task.beats_untuned))
    assert untuned.ours == pytest.approx(task.speedup.value) and untuned.speedup <= 1
    # Results are kept: the second time nothing is measured.
    assert "measuring" in capsys.readouterr().err
    assert evaluate(adam, suite, seeds=2, tasks=["line"]).tasks[0].final == task.final
    assert "measuring" not in capsys.readouterr().err
    with pytest.raises(UsageError, match="have 3 seeds"):
        evaluate(adam, suite, seeds=9, tasks=["line"])
    with pytest.raises(UsageError, match="it has line, again"):
        evaluate(adam, suite, tasks=["square"])


def test_baselines_of_other_data_are_measured_anew(
    suite: str, adam: FrozenCell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_suite(suite)
    line, path = loaded.tasks[0], _store.cached_path(loaded.name)
    evaluate(adam, suite, tasks=["line"])
    capsys.readouterr()
    # As if another version of the data had been there when they were measured.
    text = path.read_text()
    size = _store.read(path)["line"].fingerprint.data[0]
    path.write_text(text.replace(f'"data":[{size}', f'"data":[{1.01 * size}'))
    assert not _store.current(loaded.name, line)
    monkeypatch.setattr("sys.argv", ["evaluation", suite, "--task", "line", "--baseline", UNTUNED])
    measure_baselines()
    assert set(_store.current(loaded.name, line)) == {UNTUNED}
    evaluate(adam, suite, tasks=["line"])
    said = capsys.readouterr().err
    assert f"measuring {TUNED}" in said and f"measuring {UNTUNED}" not in said
    # A suite of one's own leaves the package as it was.
    assert not _store.shipped_path(loaded.name).exists()


@pytest.mark.slow
def test_a_task_has_as_many_seeds_as_its_suite_says(
    suite: str, adam: FrozenCell, capsys: pytest.CaptureFixture[str]
) -> None:
    three = evaluate(adam, suite, tasks=["line"])
    path = pathlib.Path(suite)
    path.write_text(path.read_text().replace('name = "line"', 'name = "line"\nseeds = 5'))
    load_suite.cache_clear()
    capsys.readouterr()
    five = evaluate(adam, suite, tasks=["line"])
    assert (three.runs, five.runs, five.tasks[0].seeds) == (3, 5, 5)
    # The baselines too, and the first three are the same.
    assert "no current result of 5 seeds" in capsys.readouterr().err
    first, all_of_three = (np.array(each.tasks[0].curves, np.float64) for each in (five, three))
    np.testing.assert_allclose(first[:3], all_of_three, rtol=1e-3)
    loaded = load_suite(suite)
    assert len(_store.current(loaded.name, loaded.tasks[0])[TUNED].seeds) == 5
    assert _seeds([*three.tasks, *three.tasks, *five.tasks]) == "3 seeds, 5 on line"


@pytest.mark.slow
def test_the_shipped_baselines_need_no_measuring(
    freeze_small: Callable[..., FrozenCell], capsys: pytest.CaptureFixture[str]
) -> None:
    (task,) = evaluate(freeze_small(), "valid", seeds=1, tasks=["mlp-tanh-digits"]).tasks
    assert "measuring" not in capsys.readouterr().err and task.ranked == 8
