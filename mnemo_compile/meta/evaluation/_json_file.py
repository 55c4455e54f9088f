"""Files of records by name, which several processes read and change."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import TypeVar

import filelock
import pydantic

from ..._cache import cache_folder
from ...errors import MnemoError
from ...frozen import replace_file, writing

Record = TypeVar("Record", bound=pydantic.BaseModel)


def read_records(path: pathlib.Path, kind: type[Record]) -> dict[str, Record]:
    """The records in a file, by name; none where there is no file."""
    if not path.exists():
        return {}
    try:
        return {name: kind.model_validate(record) for name, record in json.loads(path.read_text()).items()}
    except ValueError:
        raise MnemoError(f"{path} is damaged; remove it, and it is measured again") from None


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from changing a file, whose folder is made if it is missing."""
    # The lock is not a file of the package.
    lock = cache_folder() / "baselines" / f"{path.stem}.lock"
    for folder in (path.parent, lock.parent):
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(lock):
        yield


def replace(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    with writing(path):
        replace_file(path, text.encode())


def line(record: pydantic.BaseModel) -> str:
    """A record as one line of JSON, so that a change of it is a change of one line."""
    return json.dumps(record.model_dump(), separators=(",", ":"))
