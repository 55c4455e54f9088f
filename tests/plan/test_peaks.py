"""Planned peaks are those of real steps, within 15 %."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from mnemo_compile.frozen import FrozenCell
from mnemo_compile.plan import plan, Setting

ROOT = pathlib.Path(__file__).parents[2]


def measured(model: str, task: str, setting: Setting, folder: pathlib.Path) -> int:
    """Bytes of a process that trains. Its allocator gives every large tensor back at once."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.plan.measure", model, task, json.dumps(setting._asdict()), str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_TRIM_THRESHOLD_": "65536",
        },
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return int(result.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="other allocators keep what is freed")
@pytest.mark.parametrize(
    ("model", "task", "setting"),
    [
        ("bert-tiny", "pretrain", Setting(batch=16, length=64)),
        pytest.param("t5-small", "prompt-tune", Setting(batch=2, length=48), marks=pytest.mark.slow),
        pytest.param("vit-base", "finetune", Setting(batch=8), marks=pytest.mark.slow),
        pytest.param("vit-base", "finetune", Setting(batch=16, checkpointing=True), marks=pytest.mark.slow),
        pytest.param("vit-base", "finetune", Setting(batch=8, dtype="mixed"), marks=pytest.mark.slow),
        pytest.param("bert-base", "pretrain", Setting(batch=8, length=128), marks=pytest.mark.slow),
        pytest.param("t5-base", "prompt-tune", Setting(batch=4, length=64), marks=pytest.mark.slow),
    ],
    ids=lambda value: "" if isinstance(value, Setting) else value,
)
def test_the_peak_of_a_real_step(
    base: FrozenCell, package_folder: pathlib.Path, model: str, task: str, setting: Setting
) -> None:
    planned = plan(model, task, base, setting).placements[base.name].peak
    found = measured(model, task, setting, package_folder)
    print(
        f"{model} {setting}: planned {planned / 1e6:.0f} MB, measured {found / 1e6:.0f} MB, {planned / found - 1:+.1%}"
    )
    assert abs(planned / found - 1) < 0.15
