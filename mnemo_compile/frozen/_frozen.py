"""A frozen cell: its configuration, its weights and their origin."""

import dataclasses
from typing import Any, TYPE_CHECKING

import numpy as np
import pydantic
import safetensors.numpy

from ..errors import MnemoError, UsageError
from ._digest import canonical_digest
from ._document import AbstractDocument, dump_document, first_problem
from ._files import record_of
from ._identity import Identity
from ._manifest import Manifest, Training, UNTRAINED
from ._names import CELL_FILE, DataFile, WEIGHTS_FILE

if TYPE_CHECKING:
    from ..cell import AbstractCell, AbstractCellConfig


class CellDocument(AbstractDocument):
    """The content of cell.json."""

    config: dict[str, pydantic.JsonValue]
    """The configuration of the cell, with its `kind`."""


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenCell:
    """A meta-trained update rule, ready to be exported.

    **Arguments:**

    - `config`: the configuration of the cell.
    - `weights`: its arrays by their dotted names.
    - `manifest`: its name, version, digest and origin.
    """

    config: "AbstractCellConfig"
    weights: dict[str, np.ndarray]
    manifest: Manifest

    @property
    def name(self) -> str:
        """The name in the zoo."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The semantic version."""
        return self.manifest.version

    @property
    def digest(self) -> str:
        """The `canonical_digest` of configuration and weights."""
        return self.manifest.digest

    @property
    def identity(self) -> Identity:
        """Name, version and digest."""
        return Identity(self.name, self.version, self.digest)

    def checked_identity(self) -> Identity:
        """The identity. Raises `MnemoError` if the digest is not that of the configuration and the weights."""
        if canonical_digest(config_data(self.config), self.weights) != self.digest:
            raise MnemoError(
                f"the digest of {self.name} {self.version} is not that of its configuration and weights; "
                "freeze the changed cell again"
            )
        return self.identity

    def cell(self) -> "AbstractCell":
        """The cell with these weights."""
        from ..cell import with_weights

        return with_weights(self.config.template(), self.weights)


def config_data(config: "AbstractCellConfig") -> dict[str, Any]:
    """A configuration as plain JSON data."""
    return config.model_dump(mode="json")


def state_bytes(cell: "AbstractCell") -> float:
    """Bytes of state per parameter of a matrix. Most parameters belong to matrices."""
    return sum(slot.bytes_per_parameter("matrix", cell.chunk_length) for slot in cell.memory_slots)


def serialise(config: "AbstractCellConfig", weights: dict[str, np.ndarray]) -> dict[DataFile, bytes]:
    """The bytes of cell.json and weights.safetensors. Equal cells give equal bytes."""
    ordered = {name: np.asarray(weights[name], order="C") for name in sorted(weights)}
    return {
        CELL_FILE: dump_document(CellDocument(config=config_data(config))),
        WEIGHTS_FILE: safetensors.numpy.save(ordered),
    }


def freeze(
    cell: "AbstractCell", *, name: str, version: str, training: Training = UNTRAINED, license: str = "Apache-2.0"
) -> FrozenCell:
    """Freezes a cell.

    **Arguments:**

    - `cell`: the cell, meta-trained or not. The kind of its `config` is registered.
    - `name`: lower-case words joined by hyphens.
    - `version`: MAJOR.MINOR.PATCH.
    - `training`: the record of its meta-training.
    - `license`: the license of the weights, as an SPDX expression.

    **Returns:**

    The frozen cell. Weights that are not finite raise `MnemoError`; an impossible name or version raises `UsageError`.
    """
    from ..cell import cell_config, cell_weights

    config = cell.config
    weights = {key: np.array(value) for key, value in cell_weights(cell).items()}
    broken = next((key for key in sorted(weights) if not np.all(np.isfinite(weights[key]))), None)
    if broken is not None:
        raise MnemoError(f"the cell's weight {broken} is not finite; lower the meta-learning rate and train again")
    files = serialise(config, weights)
    try:
        manifest = Manifest(
            name=name,
            version=version,
            digest=canonical_digest(config_data(config), weights),
            license=license,
            state_bytes=state_bytes(cell),
            training=training,
            files={file: record_of(content) for file, content in files.items()},
        )
    except pydantic.ValidationError as error:
        raise UsageError(f"the cell cannot be called that: {first_problem(error)}") from None
    return FrozenCell(cell_config(config_data(config)), weights, manifest)


def rename(frozen: FrozenCell, *, name: str, version: str) -> FrozenCell:
    """The same cell under another name and version."""
    try:
        manifest = Manifest.model_validate({**frozen.manifest.model_dump(), "name": name, "version": version})
    except pydantic.ValidationError as error:
        raise UsageError(f"the cell cannot be called that: {first_problem(error)}") from None
    return dataclasses.replace(frozen, manifest=manifest)
