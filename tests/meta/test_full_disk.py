"""A run that can write no more ends with one sentence, keeps its checkpoints, and goes on when there is room."""

import os
import pathlib
import subprocess
import sys

import pytest

from mnemo_compile.frozen import load_bundle

LIMIT = 30_000
"""Bytes a file may have: less than the curve needs, more than the checkpoints of the small cell."""


LIMITED = f"""
import resource, signal, sys
from mnemo_compile.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_no_room_for_a_file(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "run"
    arguments = ["meta-train", str(config), "--out", str(out), "--steps", "3"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla")}
    limited = [sys.executable, "-c", LIMITED, *arguments]
    process = subprocess.run(limited, capture_output=True, text=True, env=environment, check=False)
    errors = [line for line in process.stderr.splitlines() if line.startswith("error:")]
    assert process.returncode == 1 and len(errors) == 1 and str(out) in errors[0], process.stderr
    assert "Traceback" not in process.stderr
    assert not list((out / "checkpoints").glob("*tmp*")) and not (out / "bundle").exists()

    whole = [sys.executable, "-m", "mnemo_compile", *arguments]
    again = subprocess.run([*whole, "--resume"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert load_bundle(out / "bundle").manifest.training.meta_steps == 3
