"""A prior with small tiles, as a torch package."""

import pathlib
import types
from types import ModuleType
from typing import Any

import pytest

from mnemo_compile.exporters.python import load_package
from mnemo_compile.exporters.torch import TorchExporter
from mnemo_compile.program import compile_cell
from tests.cells import cell_of


@pytest.fixture(scope="session")
def tiled_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder that holds the package `tiles`."""
    folder = tmp_path_factory.mktemp("tiles")
    frozen: Any = types.SimpleNamespace(name="tiles", version="1.0.0", digest="0" * 64)
    TorchExporter().emit(frozen, compile_cell(cell_of("prior")), folder)
    return folder


@pytest.fixture(scope="session")
def tiled(tiled_folder: pathlib.Path) -> ModuleType:
    return load_package(tiled_folder / "tiles")
