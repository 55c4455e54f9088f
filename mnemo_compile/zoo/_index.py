"""The index of a zoo: its cells, and the size and hash of each of their files."""

import pydantic

from .._suggestions import did_you_mean
from ..errors import MnemoError
from ..frozen import (
    AbstractDocument,
    BUNDLE_FILES,
    BundleFile,
    CellName,
    FileRecord,
    Identity,
    MANIFEST_FILE,
    SemanticVersion,
    Sha256,
)
from ._reference import parse_version, Reference

INDEX_FILE = "index.json"


class Entry(pydantic.BaseModel):
    """One version of one cell.

    The paths of its files are made from its name and version. No path is read from the index.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: CellName
    version: SemanticVersion
    digest: Sha256
    description: str = pydantic.Field(max_length=400)
    files: dict[BundleFile, FileRecord]

    @pydantic.field_validator("files")
    @classmethod
    def _complete(cls, files: dict[BundleFile, FileRecord]) -> dict[BundleFile, FileRecord]:
        if len(files) != len(BUNDLE_FILES):
            raise ValueError(f"should have all of {', '.join(BUNDLE_FILES)}")
        return files

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def identity(self) -> Identity:
        """Name, version and digest."""
        return Identity(self.name, self.version, self.digest)

    @property
    def folder(self) -> str:
        """The folder of its bundle in the zoo."""
        return f"{self.name}/{self.version}"

    @property
    def address(self) -> str:
        """The sha256 of its manifest, which holds the hashes of the other files. Equal addresses mean equal bundles."""
        return self.files[MANIFEST_FILE].sha256


class Index(AbstractDocument):
    """The content of index.json."""

    entries: tuple[Entry, ...] = ()

    @pydantic.field_validator("entries")
    @classmethod
    def _unique(cls, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        references = [entry.reference for entry in entries]
        duplicate = next((each for each in references if references.count(each) > 1), None)
        if duplicate is not None:
            raise ValueError(f"{duplicate} is listed twice")
        return entries

    @property
    def names(self) -> list[str]:
        """The name of each cell, in order."""
        return sorted({entry.name for entry in self.entries})

    def versions(self, name: str) -> list[Entry]:
        """The versions of a cell, the latest first."""
        entries = [entry for entry in self.entries if entry.name == name]
        return sorted(entries, key=lambda entry: parse_version(entry.version), reverse=True)

    def find(self, reference: Reference) -> Entry:
        """The latest version that the reference accepts."""
        versions = self.versions(reference.name)
        if not versions:
            raise MnemoError(f"there is no '{reference.name}' in the zoo{self._alternatives(reference.name)}")
        for entry in versions:
            if reference.accepts(parse_version(entry.version)):
                return entry
        available = ", ".join(entry.version for entry in versions)
        raise MnemoError(f"the zoo has no such version of {reference.name}; it has {available}")

    def _alternatives(self, name: str) -> str:
        if not self.names:
            return ", which is empty"
        return f", which has {', '.join(self.names)}{did_you_mean(name, self.names)}"
