"""Finding a cell in a zoo and fetching it. Every byte is checked before a file gets its final name."""

import dataclasses
import pathlib

import filelock
import fsspec.core

from .._cache import cache_folder
from ..errors import MnemoError
from ..frozen import (
    BUNDLE_FILES,
    BundleFile,
    check_file,
    FrozenCell,
    load_bundle,
    read_document,
    read_file,
    staged_folder,
    write_file,
    writing,
)
from ._index import Entry, Index, INDEX_FILE
from ._transport import is_local, join, read_bytes

EMBEDDED = pathlib.Path(__file__).parent / "models"
"""The zoo that is part of this package."""
INDEX_LIMIT = 1 << 24
"""The most bytes that an index can have."""
LOCK_SECONDS = 600
"""The longest wait for another process that fetches the same cell."""


def open_zoo(location: str | None = None) -> "Zoo":
    """Reads the index of a zoo.

    **Arguments:**

    - `location`: a folder or a URL; the zoo in this package by default.
    """
    location = str(EMBEDDED) if location is None else location
    where = join(location, INDEX_FILE)
    try:
        raw = read_bytes(where, INDEX_LIMIT)
    except FileNotFoundError:
        raise MnemoError(f"{location} is not a zoo: it has no {INDEX_FILE}; check the address") from None
    return Zoo(location, read_document(Index, raw, where))


@dataclasses.dataclass(frozen=True)
class Zoo:
    """A zoo whose index has been read.

    **Arguments:**

    - `location`: the folder or URL.
    - `index`: its content.
    """

    location: str
    index: Index

    def read(self, entry: Entry, name: BundleFile) -> bytes:
        """The checked bytes of one file of an entry."""
        record = entry.files[name]
        where = join(self.location, f"{entry.folder}/{name}")
        try:
            return check_file(read_bytes(where, record.size), record, where)
        except FileNotFoundError:
            raise MnemoError(f"{where} is missing, and the index lists it; tell the maintainer of the zoo") from None

    def download(self, entry: Entry, folder: pathlib.Path) -> None:
        """Fetches the bundle of an entry into a folder.

        A folder with this bundle stays as it is. A folder with anything else raises `MnemoError`.
        """
        if _holds(folder, entry):
            return
        with staged_folder(folder) as staging:
            self._fetch(entry, staging)

    def load(self, entry: Entry) -> FrozenCell:
        """The frozen cell of an entry. Cells of a remote zoo are cached."""
        if is_local(self.location):
            for name in BUNDLE_FILES:
                self.read(entry, name)
            path = fsspec.core.url_to_fs(self.location)[1]
            return _checked(load_bundle(pathlib.Path(path) / entry.folder), entry)
        folder = cache_folder() / "bundles" / entry.address
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(f"{folder}.lock", timeout=LOCK_SECONDS):
                if not _holds(folder, entry):
                    with staged_folder(folder, replaceable=BUNDLE_FILES) as staging:
                        self._fetch(entry, staging)
                return _checked(load_bundle(folder), entry)

    def _fetch(self, entry: Entry, staging: pathlib.Path) -> None:
        for name in BUNDLE_FILES:
            write_file(staging / name, self.read(entry, name))
        _checked(load_bundle(staging), entry)


def _checked(frozen: FrozenCell, entry: Entry) -> FrozenCell:
    """The cell, if it is the one in the index."""
    if frozen.identity != entry.identity:
        raise MnemoError(
            f"the index of the zoo has {entry.reference} with digest {entry.digest[:12]}, and the bundle there is "
            f"{frozen.name}@{frozen.version} with digest {frozen.digest[:12]}; tell the maintainer of the zoo"
        )
    return frozen


def _holds(folder: pathlib.Path, entry: Entry) -> bool:
    """Whether a folder holds exactly the bundle of this entry, byte for byte."""
    try:
        if sorted(path.name for path in folder.iterdir()) != sorted(BUNDLE_FILES):
            return False
        for name, record in entry.files.items():
            check_file(read_file(folder / name, record.size), record, name)
    except (OSError, MnemoError):
        return False
    return True
