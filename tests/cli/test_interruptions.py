"""Ctrl-C at any moment ends a process within seconds, says how to go on, and leaves nothing half written."""

import os
import pathlib
import random
import shlex
import signal
import subprocess
import sys
import time

import pytest

from mnemo_compile.exporters import verify_export
from mnemo_compile.frozen import load_bundle
from tests.meta.conftest import ADAM

SECONDS = 15
"""Within which a process ends. It needs two, on a machine that does nothing else."""
Moment = tuple[float, signal.Signals, int]
"""Seconds after the start, a signal, and how many of them."""


def moments(count: int, seed: int, latest: float) -> list[Moment]:
    """Random moments."""
    chosen = random.Random(seed)
    return [
        (
            round(chosen.uniform(0, latest), 2),
            chosen.choices((signal.SIGINT, signal.SIGTERM), (4, 1))[0],
            chosen.choice((1, 1, 2)),
        )
        for _ in range(count)
    ]


def start(*words: str) -> subprocess.Popen[str]:
    # Not with the folder of compiled programs that the tests share, where JAX leaves what it has half written.
    return subprocess.Popen(
        [sys.executable, "-m", "mnemo_compile", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")},
    )


def wait_until_signals_are_handled(process: subprocess.Popen[str]) -> None:
    """Before that the interpreter is starting, and none of our code runs."""
    while process.poll() is None:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.002)


def interrupted(moment: Moment, *words: str) -> tuple[int, str, float]:
    """The exit code, what was said, and the seconds that the end took."""
    seconds, number, times = moment
    process = start(*words)
    wait_until_signals_are_handled(process)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.05)
    began = time.monotonic()
    said = process.communicate(timeout=120)[1]
    return process.returncode, said, time.monotonic() - began


def check_end(code: int, said: str, took: float) -> None:
    assert code in (0, 130), said
    assert took < SECONDS, said
    for crash in ("Traceback", "Exception ignored", "Fatal", "Segmentation", "terminate called", "error:"):
        assert crash not in said
    if code == 130:
        assert "; go on with: mnemo " in said.splitlines()[-1]


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def check_exports(bundle: pathlib.Path, chosen: list[Moment]) -> None:
    out = bundle.parent / "out"
    words = ["export", str(bundle), "--target", "torch", "--target", "onnx", "--out", str(out)]
    codes = []
    for moment in chosen:
        code, said, took = interrupted(moment, *words)
        check_end(code, said, took)
        codes.append(code)
        if code == 130:
            assert said.endswith(f"stopped; go on with: {shlex.join(['mnemo', *words])}\n")
            # It is whole, where the signal came after the last file.
            assert not out.exists() or {path.name for path in out.iterdir()} == {"torch", "onnx"}
    assert 130 in codes


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_export_is_interrupted(bundle: pathlib.Path) -> None:
    check_exports(bundle, moments(3, seed=1, latest=5))


@pytest.mark.slow
def test_an_export_is_interrupted_often(bundle: pathlib.Path) -> None:
    check_exports(bundle, moments(30, seed=2, latest=25))
    out = bundle.parent / "out"
    done = start("export", str(bundle), "--target", "torch", "--target", "onnx", "--out", str(out))
    assert done.communicate()[0] and done.returncode == 0
    before = contents(out)
    # An export that is there already stays whole.
    check_exports(bundle, moments(15, seed=3, latest=25))
    assert contents(out) == before
    assert verify_export(out / "torch").passed


def check_runs(tmp_path: pathlib.Path, chosen: list[Moment]) -> None:
    config, out = tmp_path / "adam.toml", tmp_path / "run"
    config.write_text(ADAM)
    words = ["meta-train", str(config), "--out", str(out), "--steps", "100000"]
    for moment in chosen:
        code, said, took = interrupted(moment, *words)
        check_end(code, said, took)
        assert code == 130
        words = shlex.split(said.splitlines()[-1].partition("go on with: mnemo ")[2])
        assert ("--resume" in words) == (out / "config.json").exists()
        unfinished = [path for path in out.rglob("*") if "tmp" in path.name or path.name.startswith(".config")]
        assert not unfinished and not (out / "bundle").exists()
    saved = max((int(path.name) for path in (out / "checkpoints").iterdir()), default=0) if out.exists() else 0
    words[words.index("100000")] = str(saved + 2)
    finished = start(*words)
    said = finished.communicate()[1]
    assert finished.returncode == 0, said
    assert load_bundle(out / "bundle").manifest.training.meta_steps == saved + 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_is_interrupted(tmp_path: pathlib.Path) -> None:
    check_runs(tmp_path, moments(3, seed=4, latest=7))


@pytest.mark.slow
def test_a_run_is_interrupted_often(tmp_path: pathlib.Path) -> None:
    check_runs(tmp_path, moments(30, seed=5, latest=15))


HELD = """
import sys, threading
from mnemo_compile import _interrupts
_interrupts.watch_signals()
with open(sys.argv[1], "w") as file, _interrupts.cleaned_up(lambda: print("cleaned up", file=file, flush=True)):
    {block}
"""


def held(tmp_path: pathlib.Path, block: str, times: int = 1) -> tuple[int, str, str]:
    """Interrupts a block that first prints a line. Gives the exit code, what was said and what was written."""
    path = tmp_path / "file"
    process = subprocess.Popen(
        [sys.executable, "-c", HELD.format(block=block), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    said = process.communicate(timeout=60)[1]
    return process.returncode, said, path.read_text()


def test_a_main_thread_that_does_not_come_back_is_ended(tmp_path: pathlib.Path) -> None:
    """As one that compiles: it works in C for minutes, without the lock of the interpreter."""
    block = 'import hashlib; print("now", flush=True); hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)'
    assert held(tmp_path, block) == (130, "stopped\n", "cleaned up\n")


def test_a_block_that_takes_the_first_signal_ends_with_the_second(tmp_path: pathlib.Path) -> None:
    wait = 'print("now", flush=True); threading.Event().wait(30)'
    block = f"with _interrupts.interruptible():\n        {wait}"
    code, said, written = held(tmp_path, block, times=2)
    assert (code, written) == (130, "cleaned up\n")
    assert said == "stopping; a second Ctrl-C ends at once\nstopped\n"


def test_a_short_block_is_not_interrupted(tmp_path: pathlib.Path) -> None:
    block = (
        "with _interrupts.uninterrupted():\n"
        '        print("now", flush=True)\n'
        "        threading.Event().wait(2)\n"
        '        print("written", file=file, flush=True)\n'
        '    print("not written", file=file, flush=True)'
    )
    assert held(tmp_path, block) == (130, "stopped\n", "written\ncleaned up\n")


def test_a_process_that_is_forked_ends_and_says_nothing(tmp_path: pathlib.Path) -> None:
    block = (
        "import os, signal\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        threading.Event().wait(30)\n"
        "        os._exit(1)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    status = os.waitpid(child, 0)[1]\n"
        '    print("ended by", os.WTERMSIG(status), file=file, flush=True)\n'
        '    print("now", flush=True)\n'
        "    threading.Event().wait(30)"
    )
    assert held(tmp_path, block) == (130, "stopped\n", f"ended by {signal.SIGTERM:d}\ncleaned up\n")


def test_a_finished_command_is_not_interrupted() -> None:
    """Nothing is left to go on with."""
    code = (
        "import atexit, os, signal, sys\n"
        "from mnemo_compile.cli import main\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['mnemo', '--version']\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
