"""An evaluation that is stopped keeps its finished tasks, and the same call goes on from them."""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest

from mnemo_compile.cell import cell_config
from mnemo_compile.cli import main
from mnemo_compile.frozen import freeze, FrozenCell, save
from mnemo_compile.meta.evaluation import load_suite
from mnemo_compile.meta.evaluation._progress import Progress
from mnemo_compile.meta.evaluation._training import Runs


@pytest.fixture
def adam() -> FrozenCell:
    return freeze(cell_config({"kind": "adam"}).build(), name="plain-adam", version="1.0.0")


def start(*words: str) -> subprocess.Popen[str]:
    # Not with the folder of compiled programs that the tests share, where JAX leaves what it has half written.
    return subprocess.Popen(
        [sys.executable, "-m", "mnemo_compile", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")},
    )


@pytest.mark.slow
def test_finished_tasks_outlive_ctrl_c(
    suite: str, adam: FrozenCell, tmp_path: pathlib.Path, own_cache: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(adam, tmp_path / "adam")
    words = ["eval", str(tmp_path / "adam"), "--suite", suite, "--seeds", "2", "--json", "--out", str(tmp_path / "out")]
    with start(*words) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "task 2 of 2" in line:
                break
        process.send_signal(signal.SIGINT)
        *_, last = process.stderr.read().splitlines()
        assert process.wait() == 130
    assert any("task 1 of 2: line" in line for line in said)
    assert last == f"stopped; go on with: {shlex.join(['mnemo', *words])}"
    assert not (tmp_path / "out").exists()
    # Another number of seeds is another call.
    assert Progress(load_suite(suite), adam).read(load_suite(suite).tasks[0], 3) is None

    results = []
    for kept in (1, 0):
        assert main(shlex.split(last.partition("go on with: mnemo ")[2])) == 0
        printed = capsys.readouterr()
        assert printed.err.count("kept from a call that was stopped") == kept
        # What is kept goes when the evaluation is over.
        assert not list((own_cache / "evaluations").iterdir())
        results.append(json.loads(printed.out)["evaluations"][0])
    one, other = results
    assert one["tasks"] == other["tasks"] and one["speedup"] == other["speedup"]


def test_what_is_kept_counts_for_the_cell_and_the_task_that_were_run(suite: str, adam: FrozenCell) -> None:
    loaded = load_suite(suite)
    line, again = loaded.tasks
    columns = np.random.default_rng(0).normal(size=(4, 2))
    runs = Runs(np.full((2, 100), 0.1), columns[0], columns[1], columns[2], np.full(2, np.nan))
    progress = Progress(loaded, adam)
    progress.keep(line, runs)
    progress.keep(again, runs)
    for column, expected in zip(progress.read(line, 2) or (), runs, strict=True):
        np.testing.assert_array_equal(column, expected)
    assert progress.read(line.model_copy(update={"steps": 200}), 2) is None
    other = Progress(loaded, adam)
    other._cell = "other code"
    assert other.read(line, 2) is None
    progress.forget([line])
    assert progress.read(line, 2) is None and progress.read(again, 2) is not None
    progress.forget([again])
    assert not progress.path.exists()
