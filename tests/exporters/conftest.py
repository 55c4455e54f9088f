"""Artifacts that the tests of the exporters share."""

import pathlib
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from mnemo_compile.artifact import FrozenCell
from mnemo_compile.exporters import export, TARGETS
from mnemo_compile.exporters._package import load_package


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Tests' tensors are small, and the machine is shared among their processes."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def frozen(freeze_small: Callable[..., FrozenCell]) -> FrozenCell:
    return freeze_small(7)


@pytest.fixture(scope="session")
def exported(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder that holds one artifact for each target. Not to be written into."""
    out = tmp_path_factory.mktemp("exported")
    export(frozen, TARGETS, out)
    return out


@pytest.fixture(scope="session")
def torch_package(exported: pathlib.Path) -> ModuleType:
    return load_package(exported / "torch" / "small_cell")


@pytest.fixture(scope="session")
def optax_package(exported: pathlib.Path) -> ModuleType:
    return load_package(exported / "optax" / "small_cell")
