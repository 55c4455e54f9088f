"""Packages of two small cells, for tests that treat them as one more optimizer of torch or of optax."""

import functools
from collections.abc import Callable
from types import ModuleType

import pytest

from mnemo_compile.cell import cell_config
from mnemo_compile.exporters import exporter_of
from mnemo_compile.exporters.python import load_package
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.program import compile_cell

PRIOR = {"kind": "mnemosyne", "network": False, "momentum": [0.9], "chunk_length": 8, "prior": {"tile": 16}}


@pytest.fixture(scope="session")
def package_of(
    freeze_small: Callable[..., FrozenCell], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], ModuleType]:
    """The package that a target emits: of a prior with small tiles (`"prior"`), or of a small network with random
    weights (`"network"`)."""

    @functools.cache
    def package_of(target: str, kind: str) -> ModuleType:
        frozen = freeze_small(7)
        cell = frozen.cell() if kind == "network" else cell_config(PRIOR).build()
        folder = tmp_path_factory.mktemp(f"{target}-{kind}")
        exporter_of(target).emit(frozen, compile_cell(cell), folder)
        return load_package(folder / "small_cell")

    return package_of
