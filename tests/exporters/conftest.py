"""Exports that the tests of the exporters share."""

import functools
import os
import pathlib
from collections.abc import Callable
from types import ModuleType

import filelock
import pytest
import torch

from mnemo_compile.exporters import export, exporter_of, targets
from mnemo_compile.exporters.python import load_package
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.program import compile_cell, CompiledCell


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Tests' tensors are small, and the machine is shared among their processes."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def frozen(freeze_small: Callable[..., FrozenCell]) -> FrozenCell:
    return freeze_small(7)


@pytest.fixture(scope="session")
def exported(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of one verified export for each target, for all processes of the run. Not to be written into."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    out = shared / "exported"
    with filelock.FileLock(f"{out}.lock"):
        if not out.exists():
            export(frozen, targets(), out)
    return out


@pytest.fixture(scope="session")
def emitted(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """The folder of what a target emits, without the verification that an export begins with. Not to be written into.

    `emitted("torch")` makes it when it is first asked for.
    """

    @functools.cache
    def emit(target: str) -> pathlib.Path:
        folder = tmp_path_factory.mktemp(target)
        exporter_of(target).emit(frozen, compiled(), folder)
        return folder

    @functools.cache
    def compiled() -> CompiledCell:
        return compile_cell(frozen.cell())

    return emit


@pytest.fixture(scope="session")
def package(emitted: Callable[[str], pathlib.Path]) -> Callable[[str], ModuleType]:
    """The package that a target emits."""
    return lambda target: load_package(emitted(target) / "small_cell")


@pytest.fixture(scope="session")
def torch_package(package: Callable[[str], ModuleType]) -> ModuleType:
    return package("torch")


@pytest.fixture(scope="session")
def optax_package(package: Callable[[str], ModuleType]) -> ModuleType:
    return package("optax")
