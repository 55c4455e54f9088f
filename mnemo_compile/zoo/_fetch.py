"""Finding a cell in a zoo and bringing it here, every byte checked before it gets its final name."""

import dataclasses
import pathlib

import filelock
import fsspec.core

from .._cache import cache_folder
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
from ..errors import MnemoError

from ._index import Entry, Index, INDEX_FILE
from ._transport import is_local, join, read_bytes

EMBEDDED = pathlib.Path(__file__).parent / "models"
"""The zoo that is part of this package."""
INDEX_LIMIT = 1 << 24
"""Bytes."""
LOCK_SECONDS = 600
"""Longest wait for another process that fetches the same cell."""


def open_zoo(location: str | None = None) -> "Zoo":
    """Reads the index of a zoo.

    **Arguments:**

    - `location`: a folder or a URL; without one, the zoo that is part of this package.
    """
    location = str(EMBEDDED) if location is None else location
    where = join(location, INDEX_FILE)
    try:
        raw = read_bytes(where, INDEX_LIMIT)
    except FileNotFoundError:
        raise MnemoError(f"{location} is not a zoo: it has no {INDEX_FILE}; look at the address") from None
    return Zoo(location, read_document(Index, raw, where))


@dataclasses.dataclass(frozen=True)
class Zoo:
    """A zoo whose index has been read.

    **Arguments:**

    - `location`: the folder or URL.
    - `index`: what is there.
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
            raise MnemoError(f"{where} is missing, and the index lists it; tell whoever keeps the zoo") from None

    def download(self, entry: Entry, folder: pathlib.Path) -> None:
        """Makes a folder the bundle of an entry. One that already is stays; one that holds anything else is refused."""
        if _holds(folder, entry):
            return
        with staged_folder(folder) as staging:
            self._bring(entry, staging)

    def load(self, entry: Entry) -> FrozenCell:
        """The frozen cell of an entry; that of a remote zoo is kept in the cache."""
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
                        self._bring(entry, staging)
                return _checked(load_bundle(folder), entry)

    def _bring(self, entry: Entry, staging: pathlib.Path) -> None:
        for name in BUNDLE_FILES:
            write_file(staging / name, self.read(entry, name))
        _checked(load_bundle(staging), entry)


def _checked(frozen: FrozenCell, entry: Entry) -> FrozenCell:
    """The cell, if it is the one that the index promises."""
    if (frozen.name, frozen.version, frozen.digest) != (entry.name, entry.version, entry.digest):
        raise MnemoError(
            f"the zoo's index promises {entry.reference} with digest {entry.digest[:12]}, and the bundle there is "
            f"{frozen.name}@{frozen.version} with digest {frozen.digest[:12]}; tell whoever keeps the zoo"
        )
    return frozen


def _holds(folder: pathlib.Path, entry: Entry) -> bool:
    """Whether a folder is the bundle of this entry, byte for byte, and nothing else."""
    try:
        if sorted(path.name for path in folder.iterdir()) != sorted(BUNDLE_FILES):
            return False
        for name, record in entry.files.items():
            check_file(read_file(folder / name, record.size), record, name)
    except (OSError, MnemoError):
        return False
    return True
