"""Files that are checked before use, and folders that appear whole or not at all."""

import contextlib
import errno
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Collection, Iterator
from typing import Annotated

import pydantic

from .._interrupts import cleaned_up, temporary_folder, uninterrupted
from ..errors import MnemoError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Sha256 = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]


class FileRecord(pydantic.BaseModel):
    """The size and hash that a file must have."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    sha256: Sha256
    size: int = pydantic.Field(ge=0)
    """Bytes."""


def record_of(content: bytes) -> FileRecord:
    """The record of these bytes."""
    return FileRecord(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def check_file(content: bytes, record: FileRecord, where: str) -> bytes:
    """The bytes, if they match the record. `where` is the name of the file in errors."""
    if len(content) < record.size:
        raise MnemoError(f"{where} is truncated at {len(content)} of {record.size} bytes; get it again from its source")
    if len(content) > record.size:
        raise MnemoError(f"{where} is longer than the recorded {record.size} bytes; get it again from its source")
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise MnemoError(f"{where} is damaged: its sha256 is not the recorded one; get it again from its source")
    return content


def read_file(path: pathlib.Path, limit: int) -> bytes:
    """The bytes of a file, at most `limit + 1` of them, so that the caller sees that a file is too long."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        raise MnemoError(f"{path} is missing") from None
    except OSError as error:
        raise MnemoError(f"{path} cannot be read ({error.strerror})") from None


def write_file(path: pathlib.Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: pathlib.Path, content: bytes) -> None:
    """Puts a file in the place of another, which stays whole until then."""
    fresh = path.with_name(f".{path.name}-{os.getpid()}")
    with cleaned_up(lambda: fresh.unlink(missing_ok=True)):
        write_file(fresh, content)
        os.replace(fresh, path)


def check_writable(folder: pathlib.Path) -> None:
    """Raises `MnemoError` where a folder, which may not exist yet, cannot be written into. It makes nothing."""
    place = pathlib.Path(os.path.realpath(folder))
    while not os.path.lexists(place):
        place = place.parent
    with writing(folder), tempfile.TemporaryFile(dir=place):
        pass


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turns an `OSError`, such as a full disk or a lack of permissions, into a `MnemoError`."""
    try:
        yield
    except OSError as error:
        fix = "free some space or name another folder" if error.errno in _FULL else "name another folder"
        raise MnemoError(f"{path} cannot be written ({error.strerror or error}); {fix}") from None


@contextlib.contextmanager
def new_folder(folder: pathlib.Path) -> Iterator[None]:
    """Makes a folder, and those above it, unless they are there. What is empty when the block ends goes again."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]

    def remove_empty() -> None:
        with contextlib.suppress(OSError):
            for each in missing:
                each.rmdir()

    with cleaned_up(remove_empty):
        folder.mkdir(parents=True, exist_ok=True)
        yield


@contextlib.contextmanager
def staged_folder(target: pathlib.Path, replaceable: Collection[str] = ()) -> Iterator[pathlib.Path]:
    """A temporary folder that takes the place of `target` when the block ends, and vanishes if it fails.

    **Arguments:**

    - `target`: the folder to make. An existing one is replaced if it holds nothing but `replaceable` files.
    - `replaceable`: names of files that may be deleted.

    Anything else in the way raises `MnemoError` and stays as it is.
    """
    # If the target is a link, the folder behind it is replaced, and the link stays.
    target = pathlib.Path(os.path.realpath(target))
    _refuse_others(target, replaceable)
    with writing(target), new_folder(target.parent):
        empty = target.is_dir() and not any(target.iterdir())
        # A rename is atomic only within one file system. An empty folder may be a mount, so this goes inside it.
        place = target if empty else target.parent
        with temporary_folder(place, f".{target.name}.", ".part") as outer:
            new = outer / "new"
            new.mkdir()
            yield new
            with uninterrupted():
                if empty:
                    _move_all(new, target)
                else:
                    _refuse_others(target, replaceable)
                    _replace(target, new, outer / "old")


def _move_all(source: pathlib.Path, target: pathlib.Path) -> None:
    """Moves the content of a folder to another, which stays because it may be the working directory of a process."""
    names = sorted(path.name for path in source.iterdir())
    try:
        for name in names:
            (source / name).rename(target / name)
    except OSError:
        for name in names:
            if not (source / name).exists():
                (target / name).rename(source / name)
        raise


def _replace(target: pathlib.Path, new: pathlib.Path, old: pathlib.Path) -> None:
    """Moves `target` to `old`, and `new` to `target`."""
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise


def _refuse_others(target: pathlib.Path, replaceable: Collection[str]) -> None:
    try:
        others = sorted(path.name for path in target.iterdir() if path.name not in replaceable)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise MnemoError(f"{target} cannot be made: a file is in the way; name another folder") from None
    except OSError as error:
        raise MnemoError(f"{target} cannot be read ({error.strerror}); name another folder") from None
    if others:
        raise MnemoError(f"{target} holds something else ({others[0]}) and is left as it is; name another folder")
