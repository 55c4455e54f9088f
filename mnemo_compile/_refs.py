"""References: from the name or folder of a cell to the frozen cell."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

from .errors import MnemoError
from .frozen import FrozenCell, Identity, load_bundle, MANIFEST_FILE, read_identity

Ref = str | os.PathLike[str] | FrozenCell
"""How a user names a cell."""

RUN_BUNDLE = "bundle"
"""The folder in a run's folder that holds its bundle."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a reference leads to.

    **Arguments:**

    - `identify`: gives the identity of the cell, without importing JAX.
    - `load`: gives the cell.
    """

    identify: Callable[[], Identity]
    load: Callable[[], FrozenCell]


def load(ref: Ref, zoo: str | None = None) -> FrozenCell:
    """Loads a frozen cell, checking every byte of it.

    **Arguments:**

    - `ref`: `name`, `name@1.2.0`, `name@^1`, or the folder of a bundle or of a run. A name in the zoo takes precedence
        over a folder of that name; write `./name` for the folder. A frozen cell is returned as it is.
    - `zoo`: the folder or URL of a zoo; the zoo in this package by default.
    """
    return source_of(ref, zoo).load()


def source_of(ref: Ref, zoo: str | None = None) -> Source:
    """Where a reference leads to. Its arguments are those of `load`, and a name that no zoo has raises `MnemoError`."""
    if isinstance(ref, FrozenCell):
        return Source(ref.checked_identity, lambda: ref)
    from .zoo import is_reference, open_zoo, parse_reference

    text = os.fspath(ref)
    folder = pathlib.Path(text).expanduser()
    if not is_reference(text) and (folder.exists() or os.sep in text):
        return _source_in(folder)
    reference = parse_reference(text)
    opened = open_zoo(zoo)
    if reference.name not in opened.index.names and folder.is_dir():
        return _source_in(folder)
    entry = opened.index.find(reference)
    return Source(lambda: entry.identity, lambda: opened.load(entry))


def load_folder(folder: pathlib.Path) -> FrozenCell:
    """Loads a bundle, or the bundle of a run."""
    return load_bundle(_bundle_in(folder))


def _source_in(folder: pathlib.Path) -> Source:
    bundle = _bundle_in(folder)
    return Source(lambda: read_identity(bundle), lambda: load_bundle(bundle))


def _bundle_in(folder: pathlib.Path) -> pathlib.Path:
    """The folder of a bundle, in a folder that is one or belongs to a run."""
    if not folder.exists():
        raise MnemoError(f"there is no folder {folder}; name a bundle, a run or a cell of the zoo")
    if (folder / MANIFEST_FILE).exists() or not folder.is_dir():
        return folder
    if (folder / RUN_BUNDLE).is_dir():
        return folder / RUN_BUNDLE
    raise MnemoError(
        f"{folder} holds neither a bundle ({MANIFEST_FILE}) nor a run with one; "
        f"finish a run that was stopped with: mnemo meta-train PRESET --out {folder} --resume"
    )
