"""Verifies an export on disk again."""

import pathlib

from ..errors import MnemoError
from ..frozen import AbstractDocument, FileRecord, load_bundle, read_document, read_file
from ..program import compile_cell
from ..verify import Reference, VerificationReport
from ._targets import exporter_of

MARKER = "export.json"
"""The file that marks a folder as an export, which another export may replace."""
CELL = "cell"
"""The folder with the cell's bundle, so that the export can be verified without a zoo."""

_MARKER_LIMIT = 1 << 16


class ExportDocument(AbstractDocument):
    """The content of export.json."""

    target: str
    name: str
    version: str
    digest: str
    """Digest of the cell."""
    files: dict[str, FileRecord]
    """The other files of the export, by path. It is replaced only where they are the only ones, and unchanged."""


def exports_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """The exports in a folder: the folder itself, or folders in it."""
    if (folder / MARKER).is_file():
        return [folder]
    return sorted(marker.parent for marker in folder.glob(f"*/{MARKER}"))


def read_marker(folder: pathlib.Path) -> ExportDocument:
    """What an export says of itself. Raises `MnemoError` where that cannot be read."""
    return read_document(ExportDocument, read_file(folder / MARKER, _MARKER_LIMIT), str(folder / MARKER))


def verify_export(folder: pathlib.Path) -> VerificationReport:
    """Compares an export again with the cell whose bundle it holds. This runs the code of a Python package.

    **Arguments:**

    - `folder`: the folder of the export, such as `build/torch`.

    **Returns:**

    The report, passed or not. Missing or damaged files raise `MnemoError`.
    """
    marker = read_marker(folder)
    frozen = load_bundle(folder / CELL)
    if frozen.identity != (marker.name, marker.version, marker.digest):
        raise MnemoError(f"{folder / MARKER} names another cell than the bundle beside it; export it again")
    exporter = exporter_of(marker.target)
    reference = Reference(frozen.cell(), compile_cell(frozen.cell()))
    return reference.compare(exporter.name, frozen, exporter.open(frozen, folder))
