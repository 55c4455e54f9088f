"""A full disk while something is saved: one sentence, what was there is whole, and nothing is half written."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from mnemo_compile.cli import main
from mnemo_compile.frozen import FrozenCell, load_bundle
from mnemo_compile.zoo import open_zoo, publish

LIMITED = """
import resource, signal, sys
from mnemo_compile.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[1:]))
"""
"""A command line that can write no file of more than 1500 bytes."""


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A disk of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk can only be mounted by an administrator")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def contents(folder: pathlib.Path) -> dict[str, bytes | None]:
    """All files, with what is in them, and all folders."""
    paths = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def fill(disk: pathlib.Path, room: int) -> None:
    """Leaves so many bytes of a disk free."""
    state = os.statvfs(disk)
    (disk / "ballast").write_bytes(b"\1" * (state.f_bavail * state.f_frsize - room))


def check_refusal(said: str) -> None:
    (line,) = said.splitlines()
    assert line.startswith("error: ") and "cannot be written" in line and "free some space" in line


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_an_export_to_a_disk_that_is_full(disk: pathlib.Path, bundle: pathlib.Path, capsys) -> None:
    words = ["export", str(bundle), "--target", "torch", "--out", str(disk / "out")]
    assert main(words) == 0
    for room in (0, 24_000, 100_000):
        fill(disk, room)
        before = contents(disk)
        capsys.readouterr()
        assert main(words) == 1
        check_refusal(capsys.readouterr().err)
        assert contents(disk) == before
        (disk / "ballast").unlink()
    assert main(words) == 0


def test_a_cell_to_a_disk_that_is_full(disk: pathlib.Path, freeze_small: Callable[..., FrozenCell], capsys) -> None:
    zoo = disk / "zoo"
    publish(freeze_small(), zoo, name="small-cell", version="1.0.0")
    save = ["zoo", "publish", str(zoo / "small-cell" / "1.0.0"), "--name", "other", "--version", "1.0.0"]
    commands = (
        [*save, "--zoo", str(zoo)],
        ["download", "small-cell", "--zoo", str(zoo), "--out", str(disk / "copy")],
    )
    for room in (0, 4096, 8192):
        fill(disk, room)
        before = contents(disk)
        for words in commands:
            capsys.readouterr()
            assert main(words) == 1
            check_refusal(capsys.readouterr().err)
            assert contents(disk) == before
        (disk / "ballast").unlink()
    for words in commands:
        assert main(words) == 0
    assert open_zoo(str(zoo)).index.names == ["other", "small-cell"]
    assert load_bundle(disk / "copy").digest == freeze_small().digest


@pytest.mark.parametrize("command", [pytest.param("export", marks=pytest.mark.slow), "download", "publish"])
def test_a_file_that_cannot_be_written_whole(bundle: pathlib.Path, tmp_path: pathlib.Path, command: str) -> None:
    """For machines where no disk can be mounted."""
    out = tmp_path / "out"
    words = {
        "export": ["export", str(bundle), "--target", "torch", "--out", str(out)],
        "download": ["download", "mnemosyne-tiny", "--out", str(out)],
        "publish": ["zoo", "publish", str(bundle), "--name", "mine", "--version", "1.0.0", "--zoo", str(out)],
    }[command]
    before = contents(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        # JAX would warn that it cannot keep the programs that the tests share.
        env={name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")},
    )
    assert (done.returncode, done.stdout) == (1, "")
    check_refusal(done.stderr)
    assert contents(tmp_path) == before
