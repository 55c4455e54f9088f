"""A run's folder: one that holds something else is left as it was, and one process at a time is at work on it."""

import pathlib
import subprocess
import sys
import time

import pytest

from mnemo_compile import to_torch
from mnemo_compile.cli import main
from mnemo_compile.errors import UsageError
from mnemo_compile.exporters import export
from mnemo_compile.frozen import load_bundle
from mnemo_compile.meta import cell_name, meta_train
from mnemo_compile.meta.monitor import read_metrics


def test_a_folder_that_holds_something_else_is_left_as_it_was(adam: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "taken"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        meta_train(str(adam), out, steps=1)
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]


def test_resuming_what_is_not_there_or_is_another_run(adam: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="no run in .* to resume"):
        meta_train(str(adam), tmp_path / "none", steps=1, resume=True)
    assert not (tmp_path / "none").exists()
    out = tmp_path / "run"
    meta_train(str(adam), out, steps=1)
    with pytest.raises(UsageError, match="holds a run: add --resume"):
        meta_train(str(adam), out, steps=2)
    with pytest.raises(UsageError, match="another configuration or seed"):
        meta_train(str(adam), out, steps=2, resume=True, seed=3)


def test_a_run_has_one_process_at_a_time(
    adam: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["meta-train", str(adam), "--out", str(out)]
    command = [sys.executable, "-m", "mnemo_compile", *words, "--steps", "100000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        metrics = out / "metrics.jsonl"
        while first.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 5):
            time.sleep(0.02)
        for more in ((), ("--resume",)):
            assert main([*words, "--steps", "3", *more]) == 1
            said = capsys.readouterr().err
            assert said.count("\n") == 1 and f"another process is at work on the run in {out}; wait for its end" in said
        first.terminate()
        assert first.wait() == 130
    # Nothing of the first process is lost, and the folder is free.
    steps = [record["meta_step"] for record in read_metrics(metrics) if "objective" in record]
    assert steps == list(range(1, len(steps) + 1))
    assert main([*words, "--steps", f"{len(steps) + 1}", "--resume"]) == 0


@pytest.mark.parametrize(
    ("folder", "name"),
    [("first", "first"), ("My run_2", "my-run-2"), ("2024-01", "cell-2024-01"), ("--", "cell"), ("ü" * 3, "cell")],
)
def test_a_cell_is_called_after_its_run(tmp_path: pathlib.Path, folder: str, name: str) -> None:
    assert cell_name(tmp_path / folder) == name


@pytest.mark.usefixtures("quick")
def test_a_run_of_ones_own_has_a_name_of_its_own(adam: pathlib.Path, tmp_path: pathlib.Path) -> None:
    named = {"called": ("--name", "my-cell"), "tiny_run": ()}
    for folder, options in named.items():
        out = tmp_path / folder
        assert main(["meta-train", str(adam), "--out", str(out), "--steps", "1", *options]) == 0
        name = "my-cell" if options else "tiny-run"
        assert load_bundle(out / "bundle").name == name
        export(load_bundle(out / "bundle"), ["torch"], tmp_path / "build" / folder)
        assert (tmp_path / "build" / folder / "torch" / name.replace("-", "_") / "__init__.py").is_file()
        optimizer = to_torch(out)
        assert f"torch_{name.replace('-', '_')}_" in optimizer.__module__
    # The name stays with the run.
    assert meta_train(str(adam), tmp_path / "called", steps=2, resume=True).name == "my-cell"
