"""What a run shows is what it records, on a terminal and elsewhere, and can be drawn at any time."""

import contextlib
import io
import json
import os
import pathlib
import re
import struct
from collections.abc import Callable
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

from mnemo_compile.cli import main
from mnemo_compile.errors import MnemoError
from mnemo_compile.meta import plot
from mnemo_compile.meta.monitor import Monitor
from mnemo_compile.meta.monitor._curve import draw

FAMILIES = ("mlp-32", "quadratic [12]")


def step_record(meta_step: int, **changes: Any) -> dict[str, Any]:
    record = {
        "meta_step": meta_step,
        "objective": {family: -0.25 - place for place, family in enumerate(FAMILIES)},
        "gradient_norm": 0.0625,
        "resets": 17,
        "skipped": 3,
        "inner_steps_per_second": 54321.0,
        "seconds": 1.5 * meta_step,
    }
    return record | changes


def validation_record(meta_step: int) -> dict[str, Any]:
    figures = {"validation_objective": -0.5, "validation_training_loss": 0.125, "validation_loss": 0.375}
    record: dict[str, Any] = {"meta_step": meta_step, "validation_score": -1.625}
    return record | {name: {"vit-24": value} for name, value in figures.items()}


def take(run: pathlib.Path, *records: dict[str, Any], start: int = 0) -> None:
    with Monitor(run, start) as monitor:
        for record in records:
            if "validation_score" in record:
                monitor.validation(record)
            else:
                monitor.step(record, done=0.4, seconds_left=3725.0)


def recorded(run: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def events(run: pathlib.Path) -> dict[tuple[str, int], float]:
    """The scalars in the event files, by name and meta-step."""
    found = {}
    for path in sorted((run / "events").iterdir()):
        content = io.BytesIO(path.read_bytes())
        while header := content.read(12):
            event = Event.FromString(content.read(struct.unpack("<Q", header[:8])[0]))
            content.read(4)
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return found


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], str]:
    """Runs something with a terminal for stderr, and gives what it shows, without colours and movements."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    def run(action: Callable[[], None]) -> str:
        master, slave = os.openpty()
        with os.fdopen(slave, "w") as stderr, contextlib.redirect_stderr(stderr):
            action()
            stderr.write("the end")
            stderr.flush()
            shown = b""
            while not shown.endswith(b"the end"):
                shown += os.read(master, 1 << 16)
        os.close(master)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())

    return run


def test_a_terminal_shows_a_table_and_all_of_it_is_recorded(tmp_path: pathlib.Path, on_terminal: Any) -> None:
    shown = on_terminal(lambda: take(tmp_path, validation_record(0), step_record(1), step_record(2)))
    for part in (*FAMILIES, "vit-24", "-0.250", "-1.250", "-0.500", "0.125", "0.375"):
        assert part in shown, part
    for name, value in {
        "meta-step": "2",
        "inner steps/s": "54,321",
        "gradient norm": "0.0625",
        "validation score": "-1.625",
        "resets": "17",
        "skipped": "3",
        "time left": "1:02:05",
    }.items():
        assert re.search(rf"{name} +{value}\s", shown), name

    records = recorded(tmp_path)
    assert records == [validation_record(0), step_record(1), step_record(2)]
    scalars = events(tmp_path)
    for record in records:
        for name, value in record.items():
            values = {f"{name}/{part}": v for part, v in value.items()} if isinstance(value, dict) else {name: value}
            for tag, number in values.items() if name != "meta_step" else ():
                # TensorBoard's names have no spaces and brackets.
                assert scalars[re.sub(r"[^-/\w.]", "_", tag), record["meta_step"]] == number


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "1"}])
def test_elsewhere_a_plain_line_now_and_then(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, environment: Any
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    take(tmp_path, validation_record(0), *(step_record(meta_step) for meta_step in range(1, 6)))
    printed = capsys.readouterr()
    assert printed.out == "" and "\x1b" not in printed.err
    (line,) = printed.err.splitlines()
    for part in ("meta-loss -0.750", "meta-step 1", "inner steps/s 54,321", "resets 17", "done 40%"):
        assert part in line


def test_a_resumed_run_takes_its_steps_over(tmp_path: pathlib.Path, on_terminal: Any) -> None:
    take(tmp_path, *(step_record(meta_step, resets=0) for meta_step in range(1, 6)))
    with (tmp_path / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"meta_step": 6, "obj')
    shown = on_terminal(lambda: take(tmp_path, start=3))
    assert re.search(r"meta-step +3\s", shown), "it begins where it was"
    assert [record["meta_step"] for record in recorded(tmp_path)] == [1, 2, 3]
    take(tmp_path, step_record(4), step_record(5), start=3)
    assert [record["meta_step"] for record in recorded(tmp_path)] == [1, 2, 3, 4, 5]
    assert events(tmp_path)["resets", 4] == 17


@pytest.mark.parametrize(
    "records",
    [
        [step_record(1)],
        [validation_record(0)],
        [validation_record(0), step_record(1, gradient_norm=float("nan")), step_record(2, gradient_norm=0.0)],
        [step_record(1, objective={"mlp-32": 0.5}), step_record(2), validation_record(2)],
    ],
    ids=["one step", "before the first step", "no norm", "families that come later"],
)
def test_whatever_there_is_can_be_drawn(tmp_path: pathlib.Path, records: list[dict[str, Any]]) -> None:
    take(tmp_path, *records)
    with (tmp_path / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"meta_step": 9')
    assert plot(tmp_path) == tmp_path / "curve.png"
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "events", "metrics.jsonl"]


def test_what_cannot_be_drawn(tmp_path: pathlib.Path) -> None:
    with pytest.raises(MnemoError, match="holds no metrics yet; draw the run when"):
        plot(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("3\n")
    with pytest.raises(MnemoError, match="something else than a run's records"):
        plot(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_every_panel_names_its_lines() -> None:
    figure = draw([validation_record(0), step_record(1), step_record(2), validation_record(2)])
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is not None, axes.get_title()
        named = [text.get_text() for text in legend.get_texts()]
        assert named == [line.get_label() for line in axes.lines] and len(set(named)) == len(named) > 0
        assert not any(label.startswith("_") or not label for label in named)


def test_plot_draws_a_run_that_is_there_and_trains_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    arguments = ["meta-train", "tiny", "--out", str(tmp_path), "--plot"]
    assert main(arguments) == 1
    assert "holds no metrics yet" in capsys.readouterr().err
    take(tmp_path, step_record(1))
    before = (tmp_path / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'curve.png'}\n"
    assert "trained nothing; add --resume" in printed.err
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert main([*arguments, "--coordinator", "localhost:1", "--processes", "2", "--process", "0"]) == 2
    assert "leave out --coordinator" in capsys.readouterr().err
