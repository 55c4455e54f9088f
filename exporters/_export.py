"""Exporting: emit, verify, and only then put in place."""

import json
import pathlib
import shutil
import tempfile
from collections.abc import Sequence

from .._verify import Reference, VerificationReport
from ..artifact import FrozenCell, writing
from ..errors import MnemoError, UsageError
from ..program import compile_cell, CompiledCell
from ._package import write_text
from ._protocol import AbstractExporter
from .onnx import OnnxExporter
from .optax import OptaxExporter
from .torch import TorchExporter

_EXPORTERS: dict[str, AbstractExporter] = {
    exporter.name: exporter for exporter in (TorchExporter(), OptaxExporter(), OnnxExporter())
}

TARGETS = tuple(_EXPORTERS)
"""Names of the targets."""

MARKER = "artifact.json"
"""The file by which a folder is known as an artifact that may be replaced."""


def export(frozen: FrozenCell, targets: Sequence[str], out: pathlib.Path) -> list[VerificationReport]:
    """Exports a cell.

    **Arguments:**

    - `frozen`: the cell.
    - `targets`: names among [`TARGETS`][], or `all` for every one of them.
    - `out`: the folder that will hold one folder a target.

    **Returns:**

    A report for each target. If anything fails, [`MnemoError`][] is raised, nothing is written and
    what was there stays.
    """
    named = TARGETS if "all" in targets else dict.fromkeys(targets)
    exporters = [_exporter(target) for target in named]
    out = pathlib.Path(out)
    for exporter in exporters:
        _check_replaceable(out / exporter.name)
    compiled = compile_cell(frozen.cell())
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


def open_artifact(frozen: FrozenCell, target: str, folder: pathlib.Path) -> VerificationReport:
    """Verifies an artifact that was exported before.

    **Arguments:**

    - `frozen`: the cell that it was made of.
    - `target`: a name among [`TARGETS`][].
    - `folder`: the artifact's, such as `build/torch`.
    """
    exporter = _exporter(target)
    return Reference(frozen.cell(), compile_cell(frozen.cell())).compare(exporter.name, exporter.open(frozen, folder))


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
        identity = {"digest": frozen.digest, "name": frozen.name, "target": exporter.name, "version": frozen.version}
        write_text(folder / MARKER, json.dumps(identity, indent=2) + "\n")
    report = reference.compare(exporter.name, exporter.open(frozen, folder))
    report.check()
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
