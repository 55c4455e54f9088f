"""Exporting a cell: emit it, verify it, and only then move it into place."""

import pathlib
import shutil
import tempfile
from collections.abc import Sequence

from ..errors import MnemoError
from ..frozen import dump_document, FrozenCell, save, writing
from ..program import compile_cell, CompiledCell, Watch
from ..verify import Reference, VerificationReport
from ._interface import AbstractExporter
from ._targets import exporter_of, targets
from ._verify import CELL, ExportDocument, MARKER

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
    for exporter in exporters:
        _check_replaceable(out / exporter.name)
    compiled = compile_cell(frozen.cell(), watch)
    reference = Reference(frozen.cell(), compiled)
    existed = out.exists()
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        # Inside `out`, because a rename is atomic only within one file system.
        staging = pathlib.Path(tempfile.mkdtemp(prefix=".export.", dir=out))
    try:
        reports = [_stage(exporter, frozen, compiled, reference, staging / exporter.name) for exporter in exporters]
        with writing(out):
            _place([exporter.name for exporter in exporters], staging, out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if not existed:
            _remove_empty(out)
        raise
    shutil.rmtree(staging, ignore_errors=True)
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
        marker = ExportDocument(target=exporter.name, name=frozen.name, version=frozen.version, digest=frozen.digest)
        (folder / MARKER).write_bytes(dump_document(marker))
    report = reference.compare(exporter.name, frozen, exporter.open(frozen, folder))
    report.check("nothing was written")
    with writing(folder):
        (folder / REPORT).write_bytes(dump_document(report))
    return report


def _check_replaceable(folder: pathlib.Path) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    try:
        is_ours = (
            folder.is_dir() and not folder.is_symlink() and ((folder / MARKER).is_file() or not any(folder.iterdir()))
        )
    except OSError as error:
        raise MnemoError(f"{folder} cannot be read ({error.strerror}); name another folder") from None
    if not is_ours:
        raise MnemoError(f"{folder} is not an export and is left as it is; name another folder")


def _place(names: Sequence[str], staging: pathlib.Path, out: pathlib.Path) -> None:
    """Moves all exports into place, or none."""
    old = staging / ".old"
    old.mkdir()
    placed: list[str] = []
    try:
        for name in names:
            _check_replaceable(out / name)
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


def _remove_empty(folder: pathlib.Path) -> None:
    """Removes a folder if it is empty."""
    try:
        folder.rmdir()
    except OSError:
        return
