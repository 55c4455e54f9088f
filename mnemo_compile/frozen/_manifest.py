"""The manifest: name, version, digest and origin of a frozen cell."""

import importlib.metadata
from typing import Annotated

import pydantic

from ._document import AbstractDocument
from ._files import FileRecord, Sha256
from ._names import DATA_FILES, DataFile

CellName = Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=64)]
"""Words of lower-case letters and digits, joined by hyphens."""
SemanticVersion = Annotated[str, pydantic.Field(pattern=r"^(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){2}$")]
"""MAJOR.MINOR.PATCH, without pre-release or build parts."""
Text = Annotated[str, pydantic.Field(max_length=4096)]


def library_versions() -> dict[str, str]:
    """Versions of the libraries on which the results of meta-training depend."""
    return {name: importlib.metadata.version(name) for name in ("equinox", "jax", "jaxlib", "numpy", "optax")}


class Training(pydantic.BaseModel):
    """How a cell was meta-trained, and with what results. It holds no date, so that equal runs give equal bytes."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    command: Text
    """The command that makes such a cell again."""
    preset: Text
    seed: int
    meta_steps: int = pydantic.Field(ge=0)
    minutes: float = pydantic.Field(ge=0)
    families: tuple[Text, ...]
    """Families of training tasks."""
    figures: dict[Text, float]
    """Results on validation tasks."""
    libraries: dict[Text, Text] = pydantic.Field(default_factory=library_versions)


UNTRAINED = Training(
    command="none: its weights are those of its configuration",
    preset="none",
    seed=0,
    meta_steps=0,
    minutes=0,
    families=(),
    figures={},
)
"""The record of a cell without meta-training."""


class Manifest(AbstractDocument):
    """The content of manifest.json."""

    name: CellName
    version: SemanticVersion
    digest: Sha256
    """The `canonical_digest` of configuration and weights."""
    license: Text
    """An SPDX expression, for the weights."""
    state_bytes: float = pydantic.Field(ge=0, allow_inf_nan=False)
    """Bytes of state per parameter of a matrix."""
    training: Training
    files: dict[DataFile, FileRecord]
    checksum: Sha256 = "0" * 64
    """The sha256 of manifest.json itself, computed with zeros in place of these 64 digits."""

    @pydantic.field_validator("files")
    @classmethod
    def _complete(cls, files: dict[DataFile, FileRecord]) -> dict[DataFile, FileRecord]:
        if len(files) != len(DATA_FILES):
            raise ValueError(f"should have both {' and '.join(DATA_FILES)}")
        return files
