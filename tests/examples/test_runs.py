"""A run goes on where it stopped, and nothing that goes wrong destroys what was there."""

import dataclasses
import json
import pathlib
from typing import Any

import click
import numpy as np
import pytest
import torch

from examples.recipes._comparison import compare, train_once
from examples.recipes._loop import train
from examples.recipes._optimizers import Choice, schedule
from examples.recipes._options import Settings
from examples.recipes._run import Metrics, read_metrics
from examples.recipes._task import Example, Task
from mnemo_compile.frozen import save
from tests.conftest import Freeze
from tests.examples.conftest import Blobs, Small, small_settings, small_task


class Stops(Blobs):
    """Data that fail at a number of examples, as if the process was killed there."""

    def __init__(self, count: int, after: int, error: type[BaseException]):
        super().__init__(count)
        self._left, self._error = after, error

    def example(self, index: int, random: np.random.Generator) -> Example:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return super().example(index, random)


class Greedy(Small):
    """A network that needs more memory than there is, in its seventh step."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> Any:
        self.steps += self.training
        if self.steps == 7:
            torch.empty(2**60)
        return super().forward(inputs, labels)


def curve(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The metrics without times."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in read_metrics(folder)]


def run(task: Task, settings: Settings, choice: Choice) -> list[dict[str, Any]]:
    train(task, settings, choice, settings.seed, settings.out, keep=False)
    return curve(settings.out / "metrics.jsonl")


@pytest.fixture(params=["adamw", pytest.param("mnemosyne", marks=pytest.mark.slow)])
def choice(request: pytest.FixtureRequest, freeze_small: Freeze, tmp_path: pathlib.Path) -> Choice:
    if request.param == "adamw":
        return Choice("adamw", 1e-2)
    request.getfixturevalue("quick")
    save(freeze_small(), tmp_path / "bundle")
    return Choice(str(tmp_path / "bundle"))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_was_stopped_ends_like_one_that_was_not(
    tmp_path: pathlib.Path, choice: Choice, accumulate: int
) -> None:
    whole = run(small_task(), small_settings(tmp_path / "whole", accumulate=accumulate), choice)
    settings = small_settings(tmp_path / "stopped", accumulate=accumulate)
    with pytest.raises(KeyboardInterrupt):
        run(small_task(Stops(50, 8 * 10, KeyboardInterrupt)), settings, choice)
    assert [path.name for path in (settings.out / "checkpoints").iterdir()] == ["step-8"]
    assert run(small_task(), settings, choice) == whole
    assert [line["step"] for line in whole if "loss" in line] == list(range(1, 13))
    assert [line["step"] for line in whole if "validation_loss" in line] == [5, 10, 12]


def test_batches_in_parts_take_the_same_steps(tmp_path: pathlib.Path) -> None:
    def plain() -> Small:
        model = Small()
        model.body[1] = torch.nn.Identity()  # Dropout differs between parts and the whole.
        return model

    curves = [
        run(small_task(model=plain), small_settings(tmp_path / str(parts), accumulate=parts), Choice("adamw"))
        for parts in (1, 4)
    ]
    for one, other in zip(*curves, strict=True):
        assert one.keys() == other.keys()
        np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-4)


def test_memory_that_does_not_suffice_leaves_the_checkpoint(tmp_path: pathlib.Path) -> None:
    settings = small_settings(tmp_path / "out")
    with pytest.raises(click.ClickException, match="`mnemo plan MODEL` says") as caught:
        run(small_task(model=Greedy), settings, Choice("adamw"))
    assert caught.value.exit_code == 1
    assert [path.name for path in (settings.out / "checkpoints").iterdir()] == ["step-4"]
    assert run(small_task(), settings, Choice("adamw"))[-1]["step"] == 12


def test_what_a_failed_write_left_does_no_harm(tmp_path: pathlib.Path) -> None:
    settings = small_settings(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        run(small_task(Stops(50, 8 * 6, KeyboardInterrupt)), settings, Choice("adamw"))
    (settings.out / "checkpoints" / "partial").mkdir()
    (settings.out / "checkpoints" / "partial" / ".metadata").write_text("half")
    whole = run(small_task(), small_settings(tmp_path / "whole"), Choice("adamw"))
    assert run(small_task(), settings, Choice("adamw")) == whole


def test_a_damaged_checkpoint_is_named(tmp_path: pathlib.Path) -> None:
    settings = small_settings(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        run(small_task(Stops(50, 8 * 6, KeyboardInterrupt)), settings, Choice("adamw"))
    for file in (settings.out / "checkpoints" / "step-4").glob("*.distcp"):
        file.unlink()
    with pytest.raises(click.ClickException, match="step-4 is damaged"):
        run(small_task(), settings, Choice("adamw"))


def test_another_model_and_other_options_are_refused(tmp_path: pathlib.Path) -> None:
    settings = small_settings(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        run(small_task(Stops(50, 8 * 6, KeyboardInterrupt)), settings, Choice("adamw"))
    with pytest.raises(
        click.UsageError, match=r"another model: parameter body.0.weight is \[8, 3\] there and \[9, 3\]"
    ):
        run(small_task(model=lambda: Small(9)), settings, Choice("adamw"))
    with pytest.raises(click.UsageError, match="another run: option batch is 8 there and 4 here"):
        run(small_task(), dataclasses.replace(settings, batch=4), Choice("adamw"))
    with pytest.raises(click.UsageError, match="another run: option optimizer is adamw there and sgd here"):
        run(small_task(), settings, Choice("sgd"))
    with pytest.raises(click.UsageError, match="holds a run; pass --resume"):
        train_once(small_task(), settings)
    assert (settings.out / "checkpoints" / "step-4").exists()


def test_a_comparison_keeps_what_has_ended(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = small_settings(tmp_path, compare=("adamw:1e-2", "trainer"), seeds=2)
    compare(small_task(), settings)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/result.json")}
    assert len(before) == 4
    compare(small_task(), dataclasses.replace(settings, compare=("adamw:1e-2,1e-3", "sgd", "trainer")))
    after = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/result.json")}
    assert len(after) == 8
    assert before.items() <= after.items()
    with pytest.raises(click.UsageError, match="another run: option batch is 8 there and 4 here"):
        compare(small_task(), dataclasses.replace(settings, batch=4))
    rows = json.loads((tmp_path / "comparison.json").read_text())
    assert [row["label"] for row in rows] == ["adamw:0.01", "adamw:0.001", "sgd", "trainer"]
    assert all(row["seeds"] == 2 for row in rows)
    assert (tmp_path / "comparison.png").stat().st_size > 1000
    assert "adamw:0.001" in capsys.readouterr().out


def test_a_comparison_shows_a_run_that_ended_in_no_number(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(small_task(), small_settings(tmp_path, compare=("sgd:1e30",), clip=0.0))
    (row,) = json.loads((tmp_path / "comparison.json").read_text())
    assert row["loss"] is None
    assert "nan" in capsys.readouterr().out


def test_metrics_drop_what_a_resumed_run_writes_again(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Metrics(path, 0) as metrics:
        for step in (1, 2, 3):
            metrics.write(step, loss=float(step))
    path.write_text(path.read_text() + '{"step": 4, "lo')
    with Metrics(path, 2):
        pass
    assert curve(path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}]


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_schedules_warm_up_and_fall_to_zero(kind: str) -> None:
    factor = schedule(kind, 100, 0.1)
    rates = [factor(step) for step in range(100)]
    assert np.argmax(rates) in (9, 10)
    assert np.all(np.diff(rates[:10]) > 0)
    assert np.all(np.diff(rates[10:]) < 0)
    assert 0 < rates[-1] < 0.02
