"""The shipped cell, and its torch package for processes that measure."""

import pathlib

import pytest

import mnemo_compile as mnemo
from mnemo_compile.exporters.torch import TorchExporter
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.program import compile_cell


@pytest.fixture(scope="session")
def base() -> FrozenCell:
    return mnemo.load("mnemosyne-base")


@pytest.fixture(scope="session")
def package_folder(base: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder that holds the package `mnemosyne_base`."""
    folder = tmp_path_factory.mktemp("plan")
    TorchExporter().emit(base, compile_cell(base.cell()), folder)
    return folder
