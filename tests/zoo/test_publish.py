"""Publishing adds a version, whole, and never changes one."""

import errno
import json
import pathlib
import threading
from collections.abc import Callable

import pytest

from mnemo_compile.errors import MnemoError, UsageError
from mnemo_compile.frozen import _files, FrozenCell, save
from mnemo_compile.zoo import open_zoo, parse_reference, publish

Freeze = Callable[..., FrozenCell]


def everything(folder: pathlib.Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


def test_a_new_folder_becomes_a_zoo(freeze_small: Freeze, tmp_path: pathlib.Path) -> None:
    entry = publish(freeze_small(), tmp_path / "zoo", name="a", version="1.0.0")
    assert entry.digest == freeze_small().digest
    assert entry.description == "mnemosyne cell, meta-trained with the preset tiny"
    zoo = open_zoo(str(tmp_path / "zoo"))
    assert zoo.index.entries == (entry,)
    loaded = zoo.load(entry)
    assert (loaded.name, loaded.version, loaded.digest) == ("a", "1.0.0", entry.digest)
    files = sorted(everything(tmp_path / "zoo"))
    bundle = [f"a/1.0.0/{name}" for name in ("cell.json", "manifest.json", "weights.safetensors")]
    assert files == ["a", "a/1.0.0", *bundle, "index.json"]


def test_a_version_that_is_there_stays(freeze_small: Freeze, zoo_folder: pathlib.Path) -> None:
    before = everything(zoo_folder)
    with pytest.raises(MnemoError, match="small-cell@1.0.0 is already in .* and stays as it is; raise the version"):
        publish(freeze_small(77), zoo_folder, name="small-cell", version="1.0.0")
    assert everything(zoo_folder) == before


def test_the_others_stay(freeze_small: Freeze, zoo_folder: pathlib.Path) -> None:
    before = everything(zoo_folder)
    publish(freeze_small(77), zoo_folder, name="small-cell", version="1.10.0")
    after = everything(zoo_folder)
    assert {name: after[name] for name in before if name != "index.json"} == {
        name: content for name, content in before.items() if name != "index.json"
    }
    index = json.loads((zoo_folder / "index.json").read_text())
    versions = [entry["version"] for entry in index["entries"] if entry["name"] == "small-cell"]
    assert versions == ["0.9.0", "1.0.0", "1.2.0", "1.10.0"]
    assert open_zoo(str(zoo_folder)).index.find(parse_reference("small-cell")).version == "1.10.0"


def test_what_a_killed_publication_left_is_replaced(freeze_small: Freeze, zoo_folder: pathlib.Path) -> None:
    save(freeze_small(5), zoo_folder / "small-cell" / "2.0.0")
    entry = publish(freeze_small(6), zoo_folder, name="small-cell", version="2.0.0")
    assert open_zoo(str(zoo_folder)).load(entry).digest == freeze_small(6).digest


def test_publishing_twice_gives_the_same_bytes(freeze_small: Freeze, tmp_path: pathlib.Path) -> None:
    for name in ("one", "two"):
        publish(freeze_small(1), tmp_path / name, name="a", version="1.0.0")
        publish(freeze_small(2), tmp_path / name, name="b", version="0.1.0")
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def test_many_at_once_are_all_there(freeze_small: Freeze, tmp_path: pathlib.Path) -> None:
    cells = [freeze_small(seed) for seed in range(6)]
    threads = [
        threading.Thread(
            target=publish, args=(cell, tmp_path / "zoo"), kwargs={"name": "a", "version": f"1.0.{number}"}
        )
        for number, cell in enumerate(cells)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    zoo = open_zoo(str(tmp_path / "zoo"))
    assert [zoo.load(entry).digest for entry in zoo.index.entries] == [cell.digest for cell in cells]


def test_a_folder_with_other_things_is_no_zoo(freeze_small: Freeze, tmp_path: pathlib.Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(MnemoError, match="is not a zoo: it holds photo.png and no index.json"):
        publish(freeze_small(), tmp_path, name="a", version="1.0.0")
    assert everything(tmp_path) == {"photo.png": b"mine"}


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [("../a", "1.0.0", "name"), ("A", "1.0.0", "name"), ("a", "1.0", "not a version"), ("a", "x", "not a version")],
)
def test_names_and_versions_that_are_none(
    freeze_small: Freeze, tmp_path: pathlib.Path, name: str, version: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        publish(freeze_small(), tmp_path / "zoo", name=name, version=version)
    assert not (tmp_path / "zoo").exists()


def test_a_description_without_end(freeze_small: Freeze, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="description"):
        publish(freeze_small(), tmp_path / "zoo", name="a", version="1.0.0", description="x" * 1000)


def test_a_damaged_index_is_not_written_over(freeze_small: Freeze, zoo_folder: pathlib.Path) -> None:
    (zoo_folder / "index.json").write_text("{")
    before = everything(zoo_folder)
    with pytest.raises(MnemoError, match="index.json is not valid"):
        publish(freeze_small(), zoo_folder, name="a", version="1.0.0")
    assert everything(zoo_folder) == before


def test_a_full_disk_leaves_the_index(freeze_small: Freeze, zoo_folder: pathlib.Path, monkeypatch) -> None:
    def fail(path: pathlib.Path, content: bytes) -> None:
        path.write_bytes(content[:7])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(_files, "write_file", fail)
    before = (zoo_folder / "index.json").read_bytes()
    with pytest.raises(MnemoError, match="cannot be written .No space left on device."):
        publish(freeze_small(), zoo_folder, name="a", version="1.0.0")
    assert (zoo_folder / "index.json").read_bytes() == before
    assert not list(zoo_folder.glob(".*"))


def test_a_folder_that_cannot_be_written(freeze_small: Freeze) -> None:
    with pytest.raises(MnemoError, match="/proc/none/zoo cannot be written"):
        publish(freeze_small(), pathlib.Path("/proc/none/zoo"), name="a", version="1.0.0")
