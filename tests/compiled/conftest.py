"""A package in a cache, which the tests of this folder share."""

import pathlib
import shutil
from collections.abc import Callable

import pytest

from mnemo_compile.cell import cell_config
from mnemo_compile.compiled import _finder
from mnemo_compile.compiled._address import Address
from mnemo_compile.compiled._make import make
from mnemo_compile.frozen import freeze, FrozenCell
from mnemo_compile.verify import Reference

FreezeAdam = Callable[[str], FrozenCell]


@pytest.fixture(scope="session")
def freeze_adam() -> FreezeAdam:
    """Freezes Adam under a name. No other cell compiles as fast, and a name of its own keeps a test apart."""
    return lambda name: freeze(cell_config({"kind": "adam"}).build(), name=name, version="1.2.3")


@pytest.fixture(scope="session")
def frozen(freeze_adam: FreezeAdam) -> FrozenCell:
    """The cell of the package."""
    return freeze_adam("cached-adam")


@pytest.fixture(scope="session")
def made(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> tuple[Address, pathlib.Path]:
    """The address of a package, and the folder of the cache that holds it. Not to be written into."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNEMO_CACHE", str(folder))
        patch.setattr(Reference.__init__, "__kwdefaults__", {"seed": 0, "steps": 6})
        address, _ = make("torch", frozen.identity, lambda: frozen)
    return address, folder


@pytest.fixture
def address(made: tuple[Address, pathlib.Path], own_cache: pathlib.Path, forgotten: None) -> Address:
    """The address of a package in the test's own cache."""
    address, folder = made
    shutil.copytree(folder, own_cache, dirs_exist_ok=True)
    return address


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that knows no package yet."""
    monkeypatch.setattr(_finder, "_folders", {})
    monkeypatch.setattr(_finder, "_addresses", {})
