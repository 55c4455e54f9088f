"""Parameters that are spread over processes take the steps of whole ones, in real processes."""

import os
import pathlib
import subprocess
import sys
from types import ModuleType

import pytest

SLOW = pytest.mark.slow
SCRIPT = pathlib.Path(__file__).with_name("ranks.py")


def run(ranks: int, checks: str, *folders: pathlib.Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    result = subprocess.run(
        [sys.executable, *launcher, str(SCRIPT), checks, *map(str, folders)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]


def test_two_processes_step_as_one(tiled_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """And a checkpoint of two goes on in three."""
    run(2, "cuts,refusals,save", tiled_folder, tmp_path)
    run(3, "load", tiled_folder, tmp_path)


@SLOW
def test_a_checkpoint_of_two_processes_goes_on_in_one(tiled_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run(2, "save", tiled_folder, tmp_path)
    run(1, "load", tiled_folder, tmp_path)


@SLOW
@pytest.mark.parametrize(("ranks", "checks"), [(3, "cuts"), (4, "meshes"), (6, "meshes")])
def test_more_processes_and_meshes_step_as_one(tiled_folder: pathlib.Path, ranks: int, checks: str) -> None:
    run(ranks, checks, tiled_folder)


@SLOW
@pytest.mark.parametrize(("ranks", "checks"), [(2, "cuts"), (4, "meshes")])
def test_a_cell_that_sees_whole_tensors_sees_them(torch_package: ModuleType, ranks: int, checks: str) -> None:
    """Its chunks are sampled over the whole tensor."""
    run(ranks, checks, pathlib.Path(str(torch_package.__file__)).parents[1])
