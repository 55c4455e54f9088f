"""Packages in the cache. One is used if it is whole and unchanged, and never changed."""

import contextlib
import os
import pathlib
import shutil
import time

from ..errors import MnemoError
from ..frozen import (
    AbstractDocument,
    check_file,
    dump_document,
    FileRecord,
    read_document,
    read_file,
    record_of,
    Sha256,
    staged_folder,
    write_file,
)
from ._address import Address, packages_folder
from ._fingerprint import fingerprint

RECORD = "package.json"
"""The file in a package's folder that lists the others. Its time is that of the last use."""
RECORD_LIMIT = 1 << 20
"""The most bytes that it can have."""
UNUSED_SECONDS = 30 * 24 * 3600
"""A package that no process has loaded for so long is removed. One may read its weights long after it was loaded."""


class PackageDocument(AbstractDocument):
    """The content of package.json."""

    digest: Sha256
    """Digest of the cell."""
    files: dict[str, FileRecord]


def place(address: Address) -> pathlib.Path:
    """The folder for the package that this compiler makes."""
    return address.folder / fingerprint()[:16]


def describe(folder: pathlib.Path, digest: str) -> PackageDocument:
    """The record of the files in a folder.

    **Arguments:**

    - `folder`: the folder of an export.
    - `digest`: digest of the cell.
    """
    return PackageDocument(
        digest=digest, files={name: record_of((folder / name).read_bytes()) for name in _files(folder)}
    )


def read_package(folder: pathlib.Path) -> PackageDocument | None:
    """The record of a package whose files are all there and unchanged, else None. It counts as a use of the package."""
    record = folder / RECORD
    # A cache that cannot be written can be read. The use comes first, so that no process removes the package meanwhile.
    with contextlib.suppress(OSError):
        os.utime(record)
    try:
        document = read_document(PackageDocument, read_file(record, RECORD_LIMIT), str(record))
        if _files(folder) != sorted(document.files):
            return None
        for name, expected in document.files.items():
            check_file(read_file(folder / name, expected.size), expected, name)
    except (OSError, MnemoError):
        return None
    return document


def keep(export: pathlib.Path, document: PackageDocument, folder: pathlib.Path) -> None:
    """Copies an export into the cache, whole or not at all.

    **Arguments:**

    - `export`: the folder of the export.
    - `document`: the record of its files.
    - `folder`: its folder in the cache. What is there and is no such package is replaced.

    Raises `MnemoError` if the cache cannot be written.
    """
    if read_package(folder) == document:
        return
    others = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    with staged_folder(folder, replaceable=others) as staging:
        for name in document.files:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            write_file(staging / name, (export / name).read_bytes())
        write_file(staging / RECORD, dump_document(document))


def remove_unused() -> None:
    """Removes packages, and remains of processes that were killed, that nothing has used for long."""
    limit = time.time() - UNUSED_SECONDS
    for path in packages_folder().glob("*/*"):
        with contextlib.suppress(OSError):
            record = path / RECORD
            if (record if record.exists() else path).stat().st_mtime < limit:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _files(folder: pathlib.Path) -> list[str]:
    """Paths of the files in a package's folder, without its record and what a file system or a desktop puts there."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if path.name != RECORD and not path.name.startswith("."))
