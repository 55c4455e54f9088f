"""Adding a version to a zoo in a folder."""

import hashlib
import os
import pathlib
import shutil

import filelock
import pydantic

from .._cache import cache_folder
from .._interrupts import uninterrupted
from ..errors import MnemoError, UsageError
from ..frozen import (
    bundle_bytes,
    dump_document,
    first_problem,
    FrozenCell,
    new_folder,
    record_of,
    rename,
    replace_file,
    save,
    writing,
)
from ._fetch import LOCK_SECONDS, open_zoo
from ._index import Entry, Index, INDEX_FILE
from ._reference import parse_version


def publish(frozen: FrozenCell, zoo: pathlib.Path, *, name: str, version: str, description: str | None = None) -> Entry:
    """Adds a cell to a zoo. A published version is never replaced.

    **Arguments:**

    - `frozen`: the cell.
    - `zoo`: the folder of the zoo. An empty or missing folder becomes a zoo.
    - `name`, `version`: the name and version of the cell in the zoo.
    - `description`: one line for the list of cells; by default it names the kind and the preset.

    **Returns:**

    The entry of the cell in the index.
    """
    parse_version(version)
    renamed = rename(frozen, name=name, version=version)
    training = renamed.manifest.training
    if description is None:
        description = f"{renamed.config.kind} cell, meta-trained with the preset {training.preset}"
    try:
        entry = Entry(
            name=name,
            version=version,
            digest=renamed.digest,
            description=description,
            files={file: record_of(content) for file, content in bundle_bytes(renamed).items()},
        )
    except pydantic.ValidationError as error:
        raise UsageError(f"the cell cannot be published: {first_problem(error)}") from None
    with writing(zoo), _lock(zoo), new_folder(zoo):
        index = _read_index(zoo)
        if any(other.reference == entry.reference for other in index.entries):
            raise MnemoError(f"{entry.reference} is already in {zoo} and stays as it is; raise the version")
        entries = sorted((*index.entries, entry), key=lambda entry: (entry.name, parse_version(entry.version)))
        _add(renamed, zoo / entry.folder, zoo / INDEX_FILE, Index(entries=tuple(entries)))
    return entry


def _lock(zoo: pathlib.Path) -> filelock.BaseFileLock:
    """A lock outside the folder of the zoo, because the zoo may be under version control."""
    folder = cache_folder() / "locks"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(os.path.realpath(zoo).encode()).hexdigest()
    return filelock.FileLock(folder / f"{key}.lock", timeout=LOCK_SECONDS)


def _read_index(zoo: pathlib.Path) -> Index:
    """The index of a zoo; an empty one for a folder that is to become a zoo."""
    if (zoo / INDEX_FILE).exists():
        return open_zoo(str(zoo)).index
    other = next(zoo.iterdir(), None)
    if other is not None:
        raise MnemoError(f"{zoo} is not a zoo: it holds {other.name} and no {INDEX_FILE}; name a zoo or a new folder")
    return Index()


def _add(frozen: FrozenCell, folder: pathlib.Path, path: pathlib.Path, index: Index) -> None:
    """Writes the bundle of a cell and then the index that lists it, or neither."""
    existed = folder.exists()
    with uninterrupted(), new_folder(folder.parent):
        save(frozen, folder)
        try:
            replace_file(path, dump_document(index))
        except BaseException:
            if not existed:
                shutil.rmtree(folder, ignore_errors=True)
            raise
