"""The torch package of the shipped cell, for the places in which people train."""

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import mnemo_compile as mnemo
from mnemo_compile.exporters.python import load_package
from mnemo_compile.exporters.torch import TorchExporter
from mnemo_compile.program import compile_cell


@pytest.fixture(scope="session")
def package_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder that holds the package `mnemosyne_base`."""
    folder = tmp_path_factory.mktemp("integrations")
    frozen = mnemo.load("mnemosyne-base")
    TorchExporter().emit(frozen, compile_cell(frozen.cell()), folder)
    return folder


@pytest.fixture(scope="session")
def Mnemosyne(package_folder: pathlib.Path) -> Iterator[Any]:
    """The class of the optimizer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_package(package_folder / "mnemosyne_base").Mnemosyne
    torch.set_num_threads(threads)
