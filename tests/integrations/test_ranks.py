"""Two processes that see half of each batch take the steps of one that sees all of it."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_copies_and_shards(package_folder: pathlib.Path) -> None:
    """`DistributedDataParallel`, `fully_shard` and Accelerate."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [sys.executable, *launcher, "-m", "tests.integrations.ranks", str(package_folder)],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr[-3000:]
