"""Baselines are tuned, kept and bound to code; an evaluation says what a training does."""

import ast
import json
import pathlib
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnemo_compile.frozen import freeze, FrozenCell, save
from mnemo_compile.cell import cell_config
from mnemo_compile.cli import main
from mnemo_compile.errors import MnemoError, UsageError
from mnemo_compile.meta.evaluation import _baselines, evaluate, load_suite, TaskConfig
from mnemo_compile.meta.evaluation.__main__ import main as measure_baselines
from mnemo_compile.meta.evaluation._opponents import OPPONENTS, Setting
from mnemo_compile.meta.evaluation._report import _seeds, as_data, labels, write_report
from mnemo_compile.meta.evaluation._training import as_optax, BINS, starts, train

SUITE = """
about = "Small."

[[tasks]]
name = "line"
steps = 100
family = { network = { kind = "mlp", widths = [] }, data = { kind = "iris" }, batch = 8 }

[[tasks]]
name = "again"
steps = 100
family = { network = { kind = "mlp", widths = [4] }, data = { kind = "wine" }, batch = 8 }
before = { steps = 100, family = { network = { kind = "mlp", widths = [4] }, data = { kind = "wine" }, batch = 4 } }
"""


@pytest.fixture
def suite(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(SUITE)
    return str(path)


@pytest.fixture
def line(suite: str) -> TaskConfig:
    return load_suite(suite).tasks[0]


def settings_of(*rates: float) -> Setting:
    return Setting(np.array(rates, np.float32), np.zeros(len(rates), np.float32))


def test_a_run_depends_on_its_setting_and_seed_and_not_on_its_neighbours(line: TaskConfig) -> None:
    adamw = OPPONENTS["adamw"].make
    together = train(line, adamw, settings_of(0.01, 0.01, 0.1), [0, 1, 1])
    alone = train(line, adamw, settings_of(0.01), [1])
    assert together.curves.shape == (3, BINS)
    np.testing.assert_allclose(together.curves[1], alone.curves[0], rtol=1e-4)
    assert not np.allclose(together.curves[0], together.curves[1], rtol=1e-2)
    assert not np.allclose(together.curves[1], together.curves[2], rtol=1e-2)


def test_the_reference_of_the_adam_cell_trains_as_adam(line: TaskConfig) -> None:
    cell = cell_config({"kind": "adam"}).build()
    ours = train(line, lambda setting, steps: as_optax(cell, steps), np.zeros(1), [0])
    adam = optax.adam(1e-3)
    theirs = train(line, lambda setting, steps: optax.with_extra_args_support(adam), np.zeros(1), [0])
    np.testing.assert_allclose(ours.curves, theirs.curves, rtol=1e-3)


def test_what_was_learned_before_is_where_a_fine_tuning_starts(suite: str) -> None:
    task = load_suite(suite).tasks[1]
    assert task.before is not None
    fresh, _ = starts(task.model_copy(update={"before": None}), [0, 1])
    learned, _ = starts(task, [0, 1])
    assert all(not np.allclose(a, b) for a, b in zip(fresh, learned, strict=True))
    # Its loss on what it was trained on is lower than at a fresh start.
    family = task.before.family.build()
    drawn = family.draw(jax.random.fold_in(jax.random.key(0), 3))
    batch = family.batch(drawn, jax.random.key(9), "train")
    assert family.loss([p[0] for p in learned], batch) < 0.9 * family.loss([p[0] for p in fresh], batch)


def test_tuning_takes_the_best_point_of_the_grid(line: TaskConfig) -> None:
    result = _baselines.measure(line, OPPONENTS["adamw"], [0, 1])
    full = [point for point in result.grid if len(point.final) == 2]
    assert len(full) == _baselines.FINALISTS and len(result.grid) == 22
    best = min(full, key=lambda point: float(np.mean([value for value in point.final if value is not None])))
    assert (result.rate, result.schedule) == (best.rate, best.schedule)
    np.testing.assert_allclose(result.final, np.array(best.final, np.float64), rtol=1e-3)
    # Rates that hardly move end where they began.
    assert result.grid[0].final[0] is not None and result.grid[0].final[0] > 2 * result.final.mean()


def test_baselines_are_kept_whole_and_a_damaged_file_is_named(line: TaskConfig, tmp_path: pathlib.Path) -> None:
    result = _baselines.measure(line, OPPONENTS["adamw-1e-3"], [0])
    path = tmp_path / "kept" / "small.json"
    _baselines.keep("small", line, {"adamw-1e-3": result}, path)
    _baselines.keep("small", line, {"other": result}, path)
    kept = _baselines.read(path)["line"]
    assert set(kept.opponents) == {"adamw-1e-3", "other"} and kept.opponents["other"] == result
    path.write_text(path.read_text()[:-20])
    with pytest.raises(MnemoError, match="damaged"):
        _baselines.read(path)


def test_a_digest_is_of_the_task_and_of_the_code_that_runs_it(
    line: TaskConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _baselines.digest(line)
    assert _baselines.digest(line) == before
    assert _baselines.digest(line.model_copy(update={"steps": 200})) != before
    definitions = dict(_baselines._definitions())

    def changed(name: str) -> str:
        other = ast.parse("def something_else(): pass").body[0]
        monkeypatch.setattr(_baselines, "_definitions", lambda: {**definitions, name: other})
        return _baselines.digest(line)

    # Its network, its data, the training and the grid count; other networks and data do not.
    assert all(changed(name) != before for name in ("MLP", "Bundled", "_table", "Supervised", "_train", "RATES"))
    assert all(changed(name) == before for name in ("ViT", "Markov", "Quadratic", "reference"))


def test_comments_docstrings_and_annotations_change_no_digest() -> None:
    def essence(text: str) -> str:
        return ast.dump(_baselines._Essence().visit(ast.parse(text)))

    plain = "def f(x, y):\n    z = x + y\n    return z\n"
    told = 'def f(x: int, y: "float") -> float:\n    """Adds."""\n    # Both.\n    z = x + y\n    return z\n'
    assert essence(plain) == essence(told)
    assert essence(plain) != essence(plain.replace("+", "-"))


def test_an_evaluation_says_what_was_trained(
    suite: str, freeze_small: Callable[..., FrozenCell], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adam = freeze(cell_config({"kind": "adam"}).build(), name="plain-adam", version="1.0.0")
    judgement = evaluate(adam, suite, seeds=2, tasks=["line"])
    (task,) = judgement.tasks
    assert (task.task, task.parameters, task.steps, task.ranked) == ("line", 15, 100, 3)
    # Adam at its prior step is what AdamW at 1e-3 is, and worse than one that was tuned.
    assert task.final == pytest.approx(task.final_plain, rel=0.2)
    assert not task.won and task.speedup.value < 1 and judgement.divergences == 0
    assert judgement.digest == adam.digest and judgement.state_bytes == 8
    # Its one opponent beside tuned AdamW is AdamW at 1e-3, which is no faster than tuned.
    (plain,) = judgement.opponents
    assert (plain.opponent, plain.tasks, plain.beaten) == ("adamw-1e-3", 1, int(task.beats_plain))
    assert plain.ours == pytest.approx(task.speedup.value) and plain.speedup <= 1
    # What was measured is kept: a second time says nothing of measuring.
    assert "measuring" in capsys.readouterr().err
    assert evaluate(adam, suite, seeds=2, tasks=["line"]).tasks[0].final == task.final
    assert "measuring" not in capsys.readouterr().err
    with pytest.raises(UsageError, match="have 3 seeds"):
        evaluate(adam, suite, seeds=9, tasks=["line"])
    with pytest.raises(UsageError, match="it has line, again"):
        evaluate(adam, suite, tasks=["square"])

    # And from the command line, beside another cell.
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
    assert f"| adamw-1e-3 | 1 | {plain.speedup:.2f} | {plain.ours:.2f} | {plain.beaten} of 1 |" in report
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_cell_that_diverges_is_last_and_nothing_of_it_is_a_number_that_json_has_not(
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
    assert task["diverged"] == 2 and task["final"] is None and task["held_out"][0] is None
    assert task["rank"] == task["ranked"] == 3
    assert (plain["beats"], wild["beats"]) == ({"wild-adam": 1}, {"plain-adam": 0})
    assert wild["figures"]["tasks that end at or below AdamW tuned for the task"] == "0 of 1"
    assert wild["figures"]["validation loss against tuned AdamW, mean"].startswith("+inf%")
    assert wild["figures"]["training loss over tuned AdamW's at the same step, highest"] == "inf, line"
    assert "inf, 2 diverged" in (tmp_path / "out/report.md").read_text()


def test_cells_of_one_name_are_told_apart(suite: str) -> None:
    adam = freeze(cell_config({"kind": "adam"}).build(), name="plain-adam", version="1.0.0")
    one = evaluate(adam, suite, seeds=1, tasks=["line"])
    others = [{"version": "1.1.0"}, {"version": "1.1.0", "digest": "f" * 64}, {"name": "other"}]
    judgements = [one, *(one.model_copy(update=change) for change in others)]
    told = ["plain-adam@1.0.0", f"plain-adam@1.1.0 {adam.digest[:12]}", "plain-adam@1.1.0 ffffffffffff", "other"]
    assert labels(judgements) == told and labels(judgements[:1]) == ["plain-adam"]
    data = as_data(judgements, "command")["evaluations"]
    assert [set(each["beats"]) for each in data] == [set(told) - {label} for label in told]


def test_data_that_have_changed_since_the_baselines_are_told(
    suite: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    adam = freeze(cell_config({"kind": "adam"}).build(), name="plain-adam", version="1.0.0")
    found = load_suite(suite)
    before = evaluate(adam, suite, tasks=["line"])
    assert before.tasks[0].same_data and "other" not in capsys.readouterr().err
    # As if they had been measured with another version of the data.
    path = _baselines.cached_path(found.name)
    known = _baselines.read(path)["line"].opponents["adamw"]
    moved = known.model_copy(update={"initial": [1.01 * loss for loss in known.initial]})
    _baselines.keep(found.name, found.tasks[0], {"adamw": moved}, path)
    after = evaluate(adam, suite, tasks=["line"])
    said = capsys.readouterr().err
    assert not after.tasks[0].same_data
    write_report([after], found, "command", tmp_path / "out")
    assert "The data of line are not those" in (tmp_path / "out/report.md").read_text()
    # The command that it names mends it, where a suite of one's own is kept, and leaves the package as it was.
    options = said.partition("python -m mnemo_compile.meta.evaluation ")[2].splitlines()[0].split()
    assert options == [suite, "--task", "line", "--anew"]
    monkeypatch.setattr("sys.argv", ["evaluation", *options, "--opponent", "adamw"])
    measure_baselines()
    assert evaluate(adam, suite, tasks=["line"]).tasks[0].same_data
    assert not _baselines.path_of(found.name).exists()


def test_a_task_has_as_many_seeds_as_its_suite_says(suite: str, capsys: pytest.CaptureFixture[str]) -> None:
    adam = freeze(cell_config({"kind": "adam"}).build(), name="plain-adam", version="1.0.0")
    three = evaluate(adam, suite, tasks=["line"])
    path = pathlib.Path(suite)
    path.write_text(path.read_text().replace('name = "line"', 'name = "line"\nseeds = 5'))
    load_suite.cache_clear()
    capsys.readouterr()
    five = evaluate(adam, suite, tasks=["line"])
    assert (three.runs, five.runs, five.tasks[0].seeds) == (3, 5, 5)
    # The opponents too, and the first three are the same.
    assert "no baseline of 5 seeds yet" in capsys.readouterr().err
    first, all_of_three = (np.array(each.tasks[0].curves, np.float64) for each in (five, three))
    np.testing.assert_allclose(first[:3], all_of_three, rtol=1e-3)
    found = load_suite(suite)
    assert len(_baselines.current(found.name, found.tasks[0])["adamw"].seeds) == 5
    assert _seeds([*three.tasks, *three.tasks, *five.tasks]) == "3 seeds, 5 on line"
