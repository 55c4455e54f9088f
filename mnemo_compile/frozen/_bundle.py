"""Bundles: a frozen cell as a folder of three files. Nothing in it is ever executed or unpickled."""

import hashlib
import os
import pathlib
from typing import Any, NamedTuple, TYPE_CHECKING

import numpy as np
import pydantic
import safetensors
import safetensors.numpy

from ..errors import MnemoError
from ._digest import canonical_digest
from ._document import dump_document, first_problem, read_document
from ._files import check_file, read_file, record_of, staged_folder, write_file
from ._frozen import CellDocument, FrozenCell, serialise, state_bytes
from ._identity import Identity
from ._manifest import Manifest
from ._names import BUNDLE_FILES, BundleFile, CELL_FILE, MANIFEST_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    from ..cell import AbstractCellConfig

MANIFEST_LIMIT = 1 << 20
"""The most bytes that a manifest can have."""
BLANK = b"0" * 64
"""Takes the place of the checksum while the checksum is computed."""


def bundle_bytes(frozen: FrozenCell) -> dict[BundleFile, bytes]:
    """The content of each of the `BUNDLE_FILES`. Equal frozen cells give equal bytes."""
    files = serialise(frozen.config, frozen.weights)
    manifest = frozen.manifest.model_copy(
        update={"files": {name: record_of(content) for name, content in files.items()}, "checksum": BLANK.decode()}
    )
    blank = dump_document(manifest)
    checksum = hashlib.sha256(blank).hexdigest()
    return {**files, MANIFEST_FILE: dump_document(manifest.model_copy(update={"checksum": checksum}))}


def save(frozen: FrozenCell, folder: str | os.PathLike[str]) -> None:
    """Writes a bundle. The folder appears whole or not at all.

    **Arguments:**

    - `frozen`: the cell.
    - `folder`: where to write. An existing bundle is replaced. Anything else in the folder stays as it is and raises
        `MnemoError`.
    """
    content = bundle_bytes(frozen)
    with staged_folder(pathlib.Path(folder), replaceable=BUNDLE_FILES) as staging:
        for name in BUNDLE_FILES:
            write_file(staging / name, content[name])


def load_bundle(folder: pathlib.Path) -> FrozenCell:
    """Reads a bundle and checks all of it.

    Checks the size and sha256 of each file, the schema, the configuration, the names, dtypes and shapes of the
    weights, and the digest. Raises `MnemoError` with one sentence that names the file.
    """
    from ..cell import cell_config

    content = _read(folder)
    try:
        config = cell_config(content.config)
    except pydantic.ValidationError as error:
        raise MnemoError(f"{folder / CELL_FILE} describes no known cell: {first_problem(error)}") from None
    bytes_per_parameter = _check_weights(config, content.weights, folder / WEIGHTS_FILE)
    _check_digest(content, folder)
    manifest = content.manifest
    if bytes_per_parameter != manifest.state_bytes:
        raise MnemoError(
            f"{folder / MANIFEST_FILE} says that the cell keeps {manifest.state_bytes:g} bytes of state per parameter, "
            f"and it keeps {bytes_per_parameter:g}; get the bundle again from its source"
        )
    return FrozenCell(config, content.weights, manifest)


def read_identity(folder: pathlib.Path) -> Identity:
    """The identity of the cell in a bundle.

    Checks each file and the digest, as `load_bundle` does, but builds no cell and so does not import JAX. Raises
    `MnemoError`.
    """
    content = _read(folder)
    _check_digest(content, folder)
    manifest = content.manifest
    return Identity(manifest.name, manifest.version, manifest.digest)


class _Content(NamedTuple):
    """What the files of a bundle hold."""

    manifest: Manifest
    config: dict[str, Any]
    weights: dict[str, np.ndarray]


def _read(folder: pathlib.Path) -> _Content:
    """Reads the files of a bundle and checks the size and sha256 of each."""
    if not folder.is_dir():
        raise MnemoError(f"{folder} is not a folder, so there is no bundle in it")
    manifest = _read_manifest(folder / MANIFEST_FILE)
    files = {
        name: check_file(read_file(folder / name, record.size), record, str(folder / name))
        for name, record in manifest.files.items()
    }
    config = read_document(CellDocument, files[CELL_FILE], str(folder / CELL_FILE)).config
    return _Content(manifest, config, _read_weights(files[WEIGHTS_FILE], folder / WEIGHTS_FILE))


def _check_digest(content: _Content, folder: pathlib.Path) -> None:
    if canonical_digest(content.config, content.weights) != content.manifest.digest:
        raise MnemoError(
            f"{folder / MANIFEST_FILE} gives a digest that is not that of the weights and the configuration; "
            "get the bundle again from its source"
        )


def _read_manifest(path: pathlib.Path) -> Manifest:
    raw = read_file(path, MANIFEST_LIMIT)
    if len(raw) > MANIFEST_LIMIT:
        raise MnemoError(f"{path} has more than {MANIFEST_LIMIT} bytes, so it is not the manifest of a bundle")
    manifest = read_document(Manifest, raw, str(path))
    blank = raw.replace(manifest.checksum.encode(), BLANK)
    if hashlib.sha256(blank).hexdigest() != manifest.checksum:
        raise MnemoError(f"{path} was changed after it was written; get the bundle again from its source")
    return manifest


def _read_weights(raw: bytes, path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        # Copies, because safetensors returns read-only views of the file's bytes.
        return {name: np.array(value) for name, value in safetensors.numpy.load(raw).items()}
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise MnemoError(f"{path} is not a complete safetensors file ({error}); get it again from its source") from None


def _check_weights(config: "AbstractCellConfig", weights: dict[str, np.ndarray], path: pathlib.Path) -> float:
    """Compares the weights with those of the configuration's cell. Returns its bytes of state per parameter."""
    from ..cell import cell_weights

    cell = config.template()
    expected = cell_weights(cell)
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            raise MnemoError(f"{path} lacks the weight {name} that the cell has; get it again from its source")
        if name not in expected:
            raise MnemoError(f"{path} holds a weight {name} that the cell does not have; get it again from its source")
        expected_type, actual_type = (
            f"{array.dtype} of shape {array.shape}" for array in (expected[name], weights[name])
        )
        if expected_type != actual_type:
            raise MnemoError(f"{path} holds {name} as {actual_type} where the cell has {expected_type}")
        if not np.all(np.isfinite(weights[name])):
            raise MnemoError(f"{path} holds values of {name} that are not finite")
    return state_bytes(cell)
