"""A package in the cache is used if it is whole and unchanged, else it is made again."""

import dataclasses
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import mnemo_compile as mnemo
from mnemo_compile import zoo
from mnemo_compile.cell import AbstractCellConfig, register_cell
from mnemo_compile.compiled import _fingerprint
from mnemo_compile.compiled._address import Address, address_of
from mnemo_compile.compiled._finder import Finder
from mnemo_compile.compiled._make import make
from mnemo_compile.compiled._store import place, read_package, remove_unused, UNUSED_SECONDS
from mnemo_compile.errors import MnemoError
from mnemo_compile.frozen import freeze, FrozenCell, read_identity
from mnemo_compile.zoo import _fetch
from tests.cells import Bare

FreezeAdam = Callable[[str], FrozenCell]

pytestmark = pytest.mark.usefixtures("quick")


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def origin(address: Address) -> pathlib.Path:
    """The folder of the package that an import of the address finds."""
    spec = Finder().find_spec(address.module)
    assert spec is not None and spec.origin is not None
    return pathlib.Path(spec.origin).parents[1]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_damage_is_noticed(made: tuple[Address, pathlib.Path], data: st.DataObject) -> None:
    (folder,) = (made[1] / "packages" / made[0].stem).glob("[0-9a-f]*/")
    with tempfile.TemporaryDirectory() as temporary:
        copy = pathlib.Path(shutil.copytree(folder, pathlib.Path(temporary) / "copy"))
        whole = read_package(copy)
        assert whole is not None
        path = copy / data.draw(st.sampled_from(sorted(content(folder))), "path")
        raw = bytearray(path.read_bytes())
        # Without its end of line, the record says the same.
        place = data.draw(st.integers(0, len(raw) - 1 - (path.name == "package.json")), "place")
        match data.draw(st.sampled_from(["flip", "cut", "grow", "remove", "add"]), "damage"):
            case "flip":
                raw[place] ^= 1 << data.draw(st.integers(0, 7), "bit")
                path.write_bytes(raw)
            case "cut":
                path.write_bytes(raw[:place])
            case "grow":
                path.write_bytes(raw + b"x")
            case "remove":
                path.unlink()
            case "add":
                (path.parent / "added.py").write_bytes(raw)
        found = read_package(copy)
        # Which release wrote the record decides nothing.
        is_same = found is not None and (found.files, found.digest) == (whole.files, whole.digest)
        assert found is None or (is_same and path.name == "package.json")


def test_nothing_is_written_into_a_package_that_is_imported(address: Address, frozen: FrozenCell) -> None:
    before = content(place(address))
    mnemo.to_torch(frozen)
    assert content(place(address)) == before


@pytest.mark.parametrize("damage", ["optimizer", "record"])
def test_a_damaged_package_is_made_again_from_its_bundle(address: Address, damage: str) -> None:
    folder = place(address)
    before = content(folder)
    damaged = folder / {"optimizer": "cached_adam/_optimizer.py", "record": "package.json"}[damage]
    damaged.write_text("damaged")
    assert origin(address) == folder
    assert content(folder) == before


def test_the_package_of_another_compiler_is_made_again_from_its_bundle(
    address: Address, frozen: FrozenCell, capsys: pytest.CaptureFixture[str]
) -> None:
    other = place(address).rename(address.folder / ("0" * 16))
    assert origin(address) == place(address)
    assert read_identity(place(address) / "cell") == frozen.identity
    # A process may have loaded it.
    assert read_package(other) is not None
    assert capsys.readouterr().err.startswith("compiling cached-adam 1.2.3 for torch and verifying it")


@pytest.mark.usefixtures("forgotten")
def test_a_package_that_the_cache_lacks_is_made_from_the_zoo(
    freeze_adam: FreezeAdam, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.publish(freeze_adam("adam"), tmp_path, name="zoo-adam", version="2.0.0")
    monkeypatch.setattr(_fetch, "EMBEDDED", tmp_path)
    frozen = mnemo.load("zoo-adam")
    address = address_of("torch", frozen.identity)
    assert read_identity(origin(address) / "cell") == frozen.identity
    with pytest.raises(ImportError, match="the zoo has no zoo-adam@2.0.0 with its digest"):
        origin(address._replace(digest="0" * 16))


def test_a_cache_that_cannot_be_written(
    freeze_adam: FreezeAdam, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MNEMO_CACHE", str(tmp_path / "file" / "cache"))
    frozen = freeze_adam("uncached-adam")
    made = mnemo.to_torch(frozen)
    assert made is mnemo.to_torch(frozen)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("compiling uncached-adam 1.2.3 for torch and verifying it")
    assert second.startswith("the next process compiles uncached-adam again, unless MNEMO_CACHE names another folder: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_sources_made_that_changed_is_not_kept(
    freeze_adam: FreezeAdam, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_fingerprint, "START", 0)
    frozen = freeze_adam("stale-adam")
    address, folder = make("torch", frozen.identity, lambda: frozen)
    assert "sources of mnemo-compile have just changed" in capsys.readouterr().err
    assert folder.is_dir() and not place(address).exists()


def test_a_cell_that_was_replaced_while_it_was_loaded(freeze_adam: FreezeAdam) -> None:
    with pytest.raises(MnemoError, match="one 1.2.3 was replaced while it was loaded"):
        make("torch", freeze_adam("one").identity, lambda: freeze_adam("other"))


def test_a_cell_whose_weights_are_not_those_of_its_digest(frozen: FrozenCell) -> None:
    weights = {name: np.asarray(value * 2) for name, value in frozen.weights.items()}
    with pytest.raises(MnemoError, match="the digest of cached-adam 1.2.3 is not that of"):
        mnemo.to_torch(dataclasses.replace(frozen, weights=weights))


def test_only_what_nothing_has_used_for_long_is_removed(address: Address, own_cache: pathlib.Path) -> None:
    folder = place(address)
    unused, part = folder.with_name("f" * 16), folder.with_name(".f.x.part")
    shutil.copytree(folder, unused)
    part.mkdir()
    long_ago = time.time() - UNUSED_SECONDS - 1
    for path in (folder / "package.json", unused / "package.json", folder, part):
        os.utime(path, (long_ago, long_ago))
    assert read_package(folder) is not None
    before = content(folder)
    remove_unused()
    assert content(folder) == before
    assert not unused.exists() and not part.exists()


class OwnConfig(AbstractCellConfig):
    """A kind of cell that is not part of the package."""

    kind: Literal["own"] = "own"

    def build(self) -> Bare:
        return Bare(config=self)


@pytest.mark.usefixtures("forgotten")
def test_a_kind_of_cell_of_ones_own_is_compiled_by_each_process_and_found_by_its_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register_cell(OwnConfig)
    frozen = freeze(OwnConfig().build(), name="own-cell", version="1.0.0")
    first, folder = make("torch", frozen.identity, lambda: frozen)
    assert folder == place(first) and not place(address_of("torch", frozen.identity)).exists()
    number = folder.stat().st_ino
    assert make("torch", frozen.identity, lambda: frozen) == (first, folder)
    # A process may have loaded it.
    assert folder.stat().st_ino == number
    assert capsys.readouterr().err.count("each process does this") == 2
    monkeypatch.setattr(OwnConfig, "build", lambda self: Bare(config=self, chunk_length=32))
    second, _ = make("torch", frozen.identity, lambda: frozen)
    assert second.digest != first.digest
    assert origin(second) == place(second)
    other = folder.rename(first.folder / ("0" * 16))
    assert origin(first) == other
