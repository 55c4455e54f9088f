"""Parameters that are spread over processes take the steps of whole ones, in real processes."""

import pathlib
from types import ModuleType

import pytest

from tests.ranks import launch

SLOW = pytest.mark.slow


def run(ranks: int, checks: str, *folders: pathlib.Path) -> None:
    launch("tests.exporters.torch.ranks", ranks, checks, *map(str, folders))


def test_two_processes_step_as_one(tiled_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """And a checkpoint of two goes on in three."""
    run(2, "cuts,orders,refusals,save", tiled_folder, tmp_path)
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
