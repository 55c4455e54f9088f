"""Exporting a cell: emit it, verify it, and only then move it into place."""

import pathlib
import shutil
from collections.abc import Sequence

from .._interrupts import temporary_folder, uninterrupted
from ..errors import MnemoError
from ..frozen import check_writable, dump_document, FrozenCell, new_folder, record_of, save, writing
from ..program import compile_cell, CompiledCell, Watch
from ..verify import Reference, VerificationReport
from ._interface import AbstractExporter
from ._targets import exporter_of, targets
from ._verify import CELL, ExportDocument, MARKER, read_marker

REPORT = "verification.json"
"""The file with the report of the verification."""


def export(
    frozen: FrozenCell, names: Sequence[str], out: pathlib.Path, watch: Watch | None = None
) -> list[VerificationReport]:
    """Exports a cell.

    **Arguments:**

    - `frozen`: the cell.
    - `names`: names among `targets()`, or `all` for every one of them.
    - `out`: the folder that will hold one folder per target.
    - `watch`: called with the program of each phase after each pass.

    **Returns:**

    A report for each target. If anything fails, this raises `MnemoError`, writes nothing and leaves old exports alone.
    """
    selection = targets() if "all" in names else dict.fromkeys(names)
    exporters = [exporter_of(target) for target in selection]
    out = pathlib.Path(out)
    check_writable(out)
    for exporter in exporters:
        _check_replaceable(out / exporter.name, frozen.name)
    compiled = compile_cell(frozen.cell(), watch)
    reference = Reference(frozen.cell(), compiled)
    # Inside `out`, because a rename is atomic only within one file system.
    with writing(out), new_folder(out), temporary_folder(out, ".export.") as staging:
        reports = [_stage(exporter, frozen, compiled, reference, staging / exporter.name) for exporter in exporters]
        with uninterrupted():
            _place(frozen.name, [exporter.name for exporter in exporters], staging, out)
    return reports


def emitted_text(frozen: FrozenCell, target: str) -> str:
    """The code that a target generates from a cell, as text."""
    return exporter_of(target).text(frozen, compile_cell(frozen.cell()))


def _stage(
    exporter: AbstractExporter,
    frozen: FrozenCell,
    compiled: CompiledCell,
    reference: Reference,
    folder: pathlib.Path,
) -> VerificationReport:
    with writing(folder):
        folder.mkdir()
        exporter.emit(frozen, compiled, folder)
        save(frozen, folder / CELL)
    report = reference.compare(exporter.name, frozen, exporter.open(frozen, folder))
    report.check("nothing was written")
    with writing(folder):
        (folder / REPORT).write_bytes(dump_document(report))
        files = {name: record_of((folder / name).read_bytes()) for name in _files(folder)}
        marker = ExportDocument(
            target=exporter.name, name=frozen.name, version=frozen.version, digest=frozen.digest, files=files
        )
        (folder / MARKER).write_bytes(dump_document(marker))
    return report


def _check_replaceable(folder: pathlib.Path, name: str) -> None:
    """Refuses to replace anything but an export of a cell of this name, in which nothing was added or changed."""
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise MnemoError(f"{folder} is not an export and is left as it is; name another folder")
        files = _files(folder)
        if not files:
            return
        if MARKER not in files:
            raise MnemoError(f"{folder} is not an export and is left as it is; name another folder")
        marker = _marker_to_replace(folder)
        if marker.name != name:
            raise MnemoError(f"{folder} is the export of {marker.name} and is left as it is; name another folder")
        for file in files:
            if file != MARKER and marker.files.get(file) != record_of((folder / file).read_bytes()):
                raise MnemoError(
                    f"{folder} is left as it is, since {file} was added or changed after the export; "
                    f"move it, or name another folder"
                )
    except OSError as error:
        raise MnemoError(f"{folder} cannot be read ({error.strerror}); name another folder") from None


def _marker_to_replace(folder: pathlib.Path) -> ExportDocument:
    try:
        return read_marker(folder)
    except MnemoError as error:
        raise MnemoError(f"{error}; remove {folder}, or name another folder") from None


def _files(folder: pathlib.Path) -> list[str]:
    """The paths of all files in a folder, without the bytecode of modules that were imported from it."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.as_posix() for path in paths if "__pycache__" not in path.parts)


def _place(cell: str, names: Sequence[str], staging: pathlib.Path, out: pathlib.Path) -> None:
    """Moves all exports into place, or none."""
    old = staging / ".old"
    old.mkdir()
    placed: list[str] = []
    try:
        for name in names:
            _check_replaceable(out / name, cell)
            if (out / name).exists():
                (out / name).rename(old / name)
            placed.append(name)
            (staging / name).rename(out / name)
    except BaseException:
        for name in placed:
            if (old / name).exists():
                shutil.rmtree(out / name, ignore_errors=True)
                (old / name).rename(out / name)
            elif (out / name).exists() and not (staging / name).exists():
                shutil.rmtree(out / name, ignore_errors=True)
        raise
