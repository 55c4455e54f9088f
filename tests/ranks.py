"""Tests in several processes of torch."""

import os
import pathlib
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

ROOT = pathlib.Path(__file__).parents[1]


def launch(module: str, ranks: int, *arguments: str) -> None:
    """Runs a module in this many processes, which must all succeed."""
    if torch.__version__.startswith("2.6."):
        pytest.skip("fully_shard of torch 2.6 asks a CPU for the events of a stream, and fails")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    result = subprocess.run(
        [sys.executable, *launcher, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr[-3000:]


def leave() -> None:
    """Ends a process that has succeeded.

    With gloo in torch 2.13, an interpreter that ends after it has destroyed its groups aborts now and then, with
    "terminate called without an active exception".
    """
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
