"""References: from the name or folder of a cell to the frozen cell."""

import os
import pathlib

from .errors import MnemoError
from .frozen import FrozenCell, load_bundle, MANIFEST_FILE

Ref = str | os.PathLike[str] | FrozenCell
"""How a user names a cell."""

RUN_BUNDLE = "bundle"
"""The folder in a run's folder that holds its bundle."""


def load(ref: Ref, zoo: str | None = None) -> FrozenCell:
    """Loads a frozen cell, checking every byte of it.

    **Arguments:**

    - `ref`: `name`, `name@1.2.0`, `name@^1`, or the folder of a bundle or of a run. A name in the zoo takes precedence
        over a folder of that name; write `./name` for the folder. A frozen cell is returned as it is.
    - `zoo`: the folder or URL of a zoo; the zoo in this package by default.
    """
    if isinstance(ref, FrozenCell):
        return ref
    from .zoo import is_reference, open_zoo, parse_reference

    text = os.fspath(ref)
    folder = pathlib.Path(text).expanduser()
    if not is_reference(text) and (folder.exists() or os.sep in text):
        return load_folder(folder)
    reference = parse_reference(text)
    source = open_zoo(zoo)
    if reference.name not in source.index.names and folder.is_dir():
        return load_folder(folder)
    return source.load(source.index.find(reference))


def load_folder(folder: pathlib.Path) -> FrozenCell:
    """Loads a bundle, or the bundle of a run."""
    if not folder.exists():
        raise MnemoError(f"there is no folder {folder}; name a bundle, a run or a cell of the zoo")
    if (folder / MANIFEST_FILE).exists() or not folder.is_dir():
        return load_bundle(folder)
    if (folder / RUN_BUNDLE).is_dir():
        return load_bundle(folder / RUN_BUNDLE)
    raise MnemoError(
        f"{folder} holds neither a bundle ({MANIFEST_FILE}) nor a run with one; "
        f"finish a run that was stopped with: mnemo meta-train PRESET --out {folder} --resume"
    )
