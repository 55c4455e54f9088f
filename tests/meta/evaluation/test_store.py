"""Results of baselines are kept whole, and count while the task is the same."""

import pathlib

import pytest

from mnemo_compile.errors import MnemoError
from mnemo_compile.meta.evaluation import _store, load_suite, suites, TaskConfig
from mnemo_compile.meta.evaluation._baselines import BASELINES, TUNED, UNTUNED
from mnemo_compile.meta.evaluation._fingerprint import fingerprint
from mnemo_compile.meta.evaluation._tuning import Result, tune

QUICK = {("valid", "quadratic")}
"""Tasks whose fingerprints take seconds."""


def reads_source(task: TaskConfig) -> bool:
    families = (task.family, *([task.before.family] if task.before is not None else []))
    kinds = {getattr(getattr(family, "data", None), "kind", None) for family in families}
    return not kinds.isdisjoint(("source", "prose"))


@pytest.fixture
def result(line: TaskConfig) -> Result:
    return tune(line, BASELINES[UNTUNED], [0])


def test_results_are_kept_whole_and_a_damaged_file_is_named(
    line: TaskConfig, result: Result, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "kept" / "small.json"
    _store.keep("small", line, {UNTUNED: result}, path)
    _store.keep("small", line, {"other": result}, path)
    stored = _store.read(path)["line"]
    assert set(stored.baselines) == {UNTUNED, "other"} and stored.baselines["other"] == result
    assert stored.is_of(line)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(MnemoError, match="damaged"):
        _store.read(path)


def test_results_count_for_the_task_and_the_baseline_that_were_run(
    line: TaskConfig, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    _store.keep("small", line, {UNTUNED: result}, _store.cached_path("small"))
    assert _store.current("small", line) == {UNTUNED: result}
    assert _store.current("small", line.model_copy(update={"seeds": 7})) == {UNTUNED: result}
    assert not _store.current("small", line.model_copy(update={"steps": 200}))
    changed = BASELINES[UNTUNED]._replace(options="learning_rate=0.01")
    monkeypatch.setitem(BASELINES, UNTUNED, changed)
    assert not _store.current("small", line)


def test_results_of_a_task_that_computed_something_else_are_dropped(
    line: TaskConfig, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _store.cached_path("small")
    now = fingerprint(line)
    moved = now.model_copy(update={"losses": [1.1 * loss for loss in now.losses]})
    with monkeypatch.context() as patch:
        patch.setattr(_store, "fingerprint", lambda task: moved)
        _store.keep("small", line, {UNTUNED: result}, path)
        assert _store.current("small", line)
    assert not _store.current("small", line)
    _store.keep("small", line, {TUNED: result}, path)
    assert set(_store.read(path)["line"].baselines) == {TUNED}


@pytest.mark.parametrize(
    ("suite", "task"),
    [
        pytest.param(suite, task, marks=() if (suite, task.name) in QUICK else pytest.mark.slow)
        for suite in sorted(suites())
        for task in load_suite(suite).tasks
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_the_shipped_baselines_speak_of_the_tasks_of_today(suite: str, task: TaskConfig) -> None:
    stored, now = _store.read(_store.shipped_path(suite))[task.name], fingerprint(task)
    assert stored.digest == _store.digest(task)
    if reads_source(task) and not stored.fingerprint.has_data_of(now):
        pytest.skip("another version of Python has other text")
    assert stored.fingerprint.agrees_with(now)


@pytest.mark.parametrize("name", sorted(suites()))
def test_the_shipped_baselines_are_tuned_and_complete(name: str) -> None:
    stored = _store.read(_store.shipped_path(name))
    for task in load_suite(name).tasks:
        results = stored[task.name].baselines
        assert {TUNED, UNTUNED} <= set(results), task.name
        assert all(len(result.seeds) >= task.seeds for result in results.values())
        assert all(result.is_of(BASELINES[baseline]) for baseline, result in results.items())
        tuned = results[TUNED]
        assert len(tuned.grid) == 22
        finals = [point.final[0] for point in tuned.grid if point.final[0] is not None]
        # The best by all seeds is among the best by the first.
        chosen = next(p for p in tuned.grid if (p.rate, p.schedule) == (tuned.rate, tuned.schedule))
        assert chosen.final[0] is not None and sorted(finals).index(chosen.final[0]) < 6
