"""A run that was killed and resumed has the same weights, bit for bit, as one that was not."""

import json
import os
import pathlib
import random
import shlex
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from mnemo_compile.frozen import load_bundle
from mnemo_compile.meta import meta_train
from mnemo_compile.meta.monitor import read_metrics

STEPS = 40


def start(config: pathlib.Path, out: pathlib.Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mnemo_compile", "meta-train", str(config), "--out", str(out)]
    return subprocess.Popen([*command, *more], stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def meta_steps(out: pathlib.Path) -> int:
    path = out / "metrics.jsonl"
    return sum('"objective"' in line for line in path.read_text().splitlines()) if path.exists() else 0


def wait_for(process: subprocess.Popen[str], out: pathlib.Path, steps: int) -> None:
    while process.poll() is None and meta_steps(out) < steps:
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("windows", [((2, 30),), ((1, 8), (12, 19), (23, 30))], ids=["once", "thrice"])
def test_killed_at_random_moments_and_resumed(
    config: pathlib.Path, tmp_path: pathlib.Path, windows: tuple[tuple[int, int], ...]
) -> None:
    whole = start(config, tmp_path / "whole", "--steps", str(STEPS))
    assert whole.communicate()[1] and whole.returncode == 0

    seed = random.SystemRandom().randrange(2**32)
    print(f"seed of the moments: {seed}")
    moments = random.Random(seed)
    cut, reached = tmp_path / "cut", 0
    # Moments of their own for each attempt, far enough from the end that no attempt reaches it.
    for attempt, (earliest, latest) in enumerate(windows):
        process = start(config, cut, "--steps", str(STEPS), *(["--resume"] if attempt else []))
        wait_for(process, cut, moments.randint(earliest, latest))
        time.sleep(moments.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (cut / "bundle").exists()
        reached = max((int(p.name) for p in (cut / "checkpoints").iterdir() if p.name.isdigit()), default=0)
    assert reached > 0, "checkpoints were written before the run was killed"
    last = start(config, cut, "--steps", str(STEPS), "--resume")
    messages = last.communicate()[1]
    assert last.returncode == 0, messages

    expected, resumed = load_bundle(tmp_path / "whole/bundle"), load_bundle(cut / "bundle")
    assert resumed.digest == expected.digest
    for name, weights in expected.weights.items():
        assert resumed.weights[name].tobytes() == weights.tobytes(), name
    records = [json.loads(line) for line in (cut / "metrics.jsonl").read_text().splitlines()]
    assert [r["meta_step"] for r in records if "objective" in r] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interruption_saves_and_says_how_to_go_on(
    adam: pathlib.Path, tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    out = tmp_path / "a run"
    overrides = ("--set", "outer.validate_every=7", "--set", 'outer.trains=["learning_rate"]')
    more = ("--steps", "100000", "--seed", "3", *overrides)
    process = start(adam, out, *more)
    wait_for(process, out, 5)
    process.send_signal(number)
    messages = process.communicate()[1]
    assert process.returncode == 130, messages
    saved = max(int(p.name) for p in (out / "checkpoints").iterdir())
    assert f"saved after meta-step {saved}" in messages and "Traceback" not in messages
    # What it says to go on with is what it was started with, word for word as a shell takes it.
    (command,) = (line.partition("go on with: ")[2] for line in messages.splitlines() if "go on with: " in line)
    words = shlex.split(command)
    assert words[:3] == ["mnemo", "meta-train", str(adam)]
    assert sorted(words[3:]) == sorted(["--out", str(out), "--resume", *more])

    words[words.index("100000")] = str(saved + 2)
    resumed = subprocess.Popen([sys.executable, "-m", "mnemo_compile", *words[1:]], stderr=subprocess.PIPE, text=True)
    messages = resumed.communicate()[1]
    assert resumed.returncode == 0, messages
    assert load_bundle(out / "bundle").manifest.training.meta_steps == saved + 2


def test_a_finished_run_made_longer_is_the_longer_run(adam: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What is validated at its end has no say in which weights the longer one keeps."""

    def score(out: pathlib.Path) -> float:
        return [r for r in read_metrics(out / "metrics.jsonl") if "validation_score" in r][-1]["validation_score"]

    # With steps this large the averages get worse, so that an early one would be kept.
    more: dict[str, Any] = {"overrides": ("outer.learning_rate=0.1",), "seed": 2}
    whole = meta_train(str(adam), tmp_path / "whole", steps=8, **more)
    meta_train(str(adam), tmp_path / "longer", steps=3, **more)
    assert score(tmp_path / "longer") < score(tmp_path / "whole")
    longer = meta_train(str(adam), tmp_path / "longer", steps=8, resume=True, **more)
    assert longer.digest == whole.digest
