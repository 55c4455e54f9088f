"""A bundle is written whole or not at all, and never over something else."""

import errno
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from mnemo_compile.errors import MnemoError
from mnemo_compile.frozen import _bundle, BUNDLE_FILES, FrozenCell, load_bundle, save, staged_folder

Freeze = Callable[..., FrozenCell]


def everything(folder: pathlib.Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


def test_a_bundle_is_replaced(freeze_small: Freeze, bundle: pathlib.Path) -> None:
    save(freeze_small(1), bundle)
    assert load_bundle(bundle).digest == freeze_small(1).digest
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_missing_parents_are_made(freeze_small: Freeze, tmp_path: pathlib.Path) -> None:
    save(freeze_small(), tmp_path / "a" / "b")
    assert load_bundle(tmp_path / "a" / "b").name == "small-cell"


def test_an_empty_folder_is_filled(freeze_small: Freeze, tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").mkdir()
    save(freeze_small(), tmp_path / "empty")
    assert load_bundle(tmp_path / "empty").name == "small-cell"


def test_an_empty_working_directory_stays_the_same_folder(
    freeze_small: Freeze, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    before = folder.stat().st_ino
    save(freeze_small(), pathlib.Path())
    assert folder.stat().st_ino == before
    assert load_bundle(pathlib.Path()).name == "small-cell"
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(("here", *BUNDLE_FILES))


def test_an_empty_folder_stays_empty_if_a_file_cannot_be_moved(
    freeze_small: Freeze, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = pathlib.Path.rename

    def fail(self: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        if self.name == "weights.safetensors":
            raise OSError(errno.EIO, "no more", str(target))
        return rename(self, target)

    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(pathlib.Path, "rename", fail)
    with pytest.raises(MnemoError, match="no more"):
        save(freeze_small(), tmp_path / "empty")
    assert everything(tmp_path) == {"empty": None}


def test_a_link_stays_a_link(freeze_small: Freeze, bundle: pathlib.Path) -> None:
    link = bundle.parent / "link"
    link.symlink_to(bundle)
    save(freeze_small(1), link)
    assert link.is_symlink()
    assert load_bundle(bundle).digest == freeze_small(1).digest


@pytest.mark.parametrize("other", ["notes.txt", ".hidden", "cell.json.bak"])
def test_something_else_is_left_as_it_is(freeze_small: Freeze, bundle: pathlib.Path, other: str) -> None:
    (bundle / other).write_text("mine")
    before = everything(bundle.parent)
    with pytest.raises(MnemoError, match=f"holds something else \\({other}\\)"):
        save(freeze_small(1), bundle)
    assert everything(bundle.parent) == before


@pytest.mark.parametrize("below", ["", "folder"])
def test_a_file_in_the_way_is_left_as_it_is(freeze_small: Freeze, tmp_path: pathlib.Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MnemoError, match=str(tmp_path / "file")):
        save(freeze_small(), tmp_path / "file" / below)
    assert everything(tmp_path) == {"file": b"mine"}


def test_a_folder_that_cannot_be_written(freeze_small: Freeze) -> None:
    with pytest.raises(MnemoError, match="/proc/none/bundle cannot be written .*; name another"):
        save(freeze_small(), pathlib.Path("/proc/none/bundle"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("failing", range(3))
def test_a_failing_disk_leaves_what_was_there(
    freeze_small: Freeze, bundle: pathlib.Path, monkeypatch: pytest.MonkeyPatch, code: int, failing: int
) -> None:
    write_file = _bundle.write_file
    calls = iter(range(3))

    def fail(path: pathlib.Path, content: bytes) -> None:
        if next(calls) == failing:
            path.write_bytes(content[:10])
            raise OSError(code, "no more", str(path))
        write_file(path, content)

    monkeypatch.setattr(_bundle, "write_file", fail)
    before = everything(bundle.parent)
    with pytest.raises(MnemoError, match="cannot be written .no more."):
        save(freeze_small(1), bundle)
    assert everything(bundle.parent) == before
    with pytest.raises(MnemoError, match="cannot be written"):
        calls = iter(range(3))
        save(freeze_small(1), bundle.parent / "new")
    assert everything(bundle.parent) == before


def test_an_interruption_leaves_what_was_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "folder") as staging:
        (staging / "half").write_text("written")
        raise KeyboardInterrupt
    assert everything(tmp_path) == {}


def test_a_rename_that_fails_puts_back_what_was_there(
    freeze_small: Freeze, bundle: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = pathlib.Path.rename

    def fail(self: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        if self.name == "new":
            raise OSError(errno.EIO, "no more", str(target))
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", fail)
    before = everything(bundle.parent)
    with pytest.raises(MnemoError, match="no more"):
        save(freeze_small(1), bundle)
    assert everything(bundle.parent) == before


def test_a_full_disk(bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A process that may write no file as long as the weights."""

    code = (
        "import pathlib, resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from mnemo_compile.frozen import load_bundle, save\n"
        "from mnemo_compile.errors import MnemoError\n"
        "frozen = load_bundle(pathlib.Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))\n"
        "try:\n    save(frozen, pathlib.Path(sys.argv[2]))\n"
        "except MnemoError as error:\n    sys.exit(str(error))\n"
    )
    before = everything(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", code, str(bundle), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"{tmp_path / 'out'} cannot be written (File too large)")
    assert everything(tmp_path) == before
