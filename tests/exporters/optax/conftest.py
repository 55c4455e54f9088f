"""Packages of the optax target that several tests share."""

import functools
from types import ModuleType
from typing import Any

import pytest

from mnemo_compile.cell import cell_config
from mnemo_compile.exporters.optax import OptaxExporter
from mnemo_compile.exporters.python import load_package
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.program import compile_cell
from tests.cells import cell_of


@pytest.fixture(scope="session")
def package_of(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The imported package of a kind of cell."""

    @functools.cache
    def package_of(kind: str) -> ModuleType:
        folder = tmp_path_factory.mktemp(kind)
        OptaxExporter().emit(frozen, compile_cell(cell_of(kind)), folder)
        package = load_package(folder / "small_cell")
        # So that tensors share blocks though blocks are small.
        package._partition.SHORTEST = 64
        return package

    return package_of


@pytest.fixture(scope="session")
def prior(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The package of a Mnemosyne without a network."""
    folder = tmp_path_factory.mktemp("prior")
    cell = cell_config({"kind": "mnemosyne", "network": False}).build()
    OptaxExporter().emit(frozen, compile_cell(cell), folder)
    return load_package(folder / "small_cell")
