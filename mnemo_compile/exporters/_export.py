"""Exporting: emit, verify, and only then put in place."""

import pathlib
import shutil
import tempfile
from collections.abc import Sequence

from ..verify import Reference, VerificationReport
from ..frozen import AbstractDocument, dump_document, FrozenCell, load_bundle, read_document, read_file, save, writing
from ..errors import MnemoError, UsageError
from ..program import compile_cell, CompiledCell, Watch
from ._interface import AbstractExporter
from .onnx import OnnxExporter
from .optax import OptaxExporter
from .stablehlo import StableHloExporter
from .torch import TorchExporter

_EXPORTERS: dict[str, AbstractExporter] = {
    exporter.name: exporter for exporter in (TorchExporter(), OptaxExporter(), OnnxExporter(), StableHloExporter())
}

TARGETS = tuple(_EXPORTERS)
"""Names of the targets."""

MARKER = "artifact.json"
"""The file by which a folder is known as an artifact that may be replaced."""
REPORT = "verification.json"
"""How the artifact compared with its cell."""
CELL = "cell"
"""The folder of the cell's bundle, so that the artifact can be verified wherever it is."""

_MARKER_LIMIT = 1 << 16


class ArtifactDocument(AbstractDocument):
    """The content of artifact.json."""

    target: str
    name: str
    version: str
    digest: str
    """Of the cell."""


def export(
    frozen: FrozenCell, targets: Sequence[str], out: pathlib.Path, watch: Watch | None = None
) -> list[VerificationReport]:
    """Exports a cell.

    **Arguments:**

    - `frozen`: the cell.
    - `targets`: names among [`TARGETS`][], or `all` for every one of them.
    - `out`: the folder that will hold one folder a target.
    - `watch`: sees the program of each phase after each pass.

    **Returns:**

    A report for each target. If anything fails, [`MnemoError`][] is raised, nothing is written and
    what was there stays.
    """
    named = TARGETS if "all" in targets else dict.fromkeys(targets)
    exporters = [_exporter(target) for target in named]
    out = pathlib.Path(out)
    for exporter in exporters:
        _check_replaceable(out / exporter.name)
    compiled = compile_cell(frozen.cell(), watch)
    reference = Reference(frozen.cell(), compiled)
    existed = out.exists()
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        # Inside `out`: only within one file system is a rename atomic.
        staging = pathlib.Path(tempfile.mkdtemp(prefix=".export.", dir=out))
    try:
        reports = [_stage(exporter, frozen, compiled, reference, staging / exporter.name) for exporter in exporters]
        with writing(out):
            _place([exporter.name for exporter in exporters], staging, out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if not existed:
            # Only while it is empty.
            _remove_empty(out)
        raise
    shutil.rmtree(staging, ignore_errors=True)
    return reports


def emitted_text(frozen: FrozenCell, target: str) -> str:
    """What a target makes of a cell, to be read."""
    return _exporter(target).text(frozen, compile_cell(frozen.cell()))


def artifacts_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """The artifacts in a folder: itself, or folders in it."""
    if (folder / MARKER).is_file():
        return [folder]
    return sorted(marker.parent for marker in folder.glob(f"*/{MARKER}"))


def verify_artifact(folder: pathlib.Path) -> VerificationReport:
    """Compares an artifact again with the cell whose bundle it holds. The code of a Python package is run.

    **Arguments:**

    - `folder`: the artifact's, such as `build/torch`.

    **Returns:**

    The report, passed or not. Files that are missing or not what they should be raise [`MnemoError`][].
    """
    where = str(folder / MARKER)
    marker = read_document(ArtifactDocument, read_file(folder / MARKER, _MARKER_LIMIT), where)
    frozen = load_bundle(folder / CELL)
    if (frozen.name, frozen.version, frozen.digest) != (marker.name, marker.version, marker.digest):
        raise MnemoError(f"{where} names another cell than the bundle beside it; export it again")
    return open_artifact(frozen, marker.target, folder)


def open_artifact(frozen: FrozenCell, target: str, folder: pathlib.Path) -> VerificationReport:
    """Compares an artifact with a cell.

    **Arguments:**

    - `frozen`: the cell that it was made of.
    - `target`: a name among [`TARGETS`][].
    - `folder`: the artifact's, such as `build/torch`.
    """
    exporter = _exporter(target)
    reference = Reference(frozen.cell(), compile_cell(frozen.cell()))
    return reference.compare(exporter.name, frozen, exporter.open(frozen, folder))


def _exporter(target: str) -> AbstractExporter:
    if target not in _EXPORTERS:
        raise UsageError(f"there is no target {target!r}; the targets are {', '.join(TARGETS)} and all")
    return _EXPORTERS[target]


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
        marker = ArtifactDocument(target=exporter.name, name=frozen.name, version=frozen.version, digest=frozen.digest)
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
        raise MnemoError(f"{folder} is not an artifact of an export and is left as it is; name another folder")


def _place(names: Sequence[str], staging: pathlib.Path, out: pathlib.Path) -> None:
    """Moves all artifacts in place, or none."""
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
    try:
        folder.rmdir()
    except OSError:
        return
