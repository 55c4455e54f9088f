"""The index of a zoo: which cells there are, and what each of their files must be."""

import difflib

import pydantic

from ..frozen import (
    AbstractDocument,
    BUNDLE_FILES,
    BundleFile,
    CellName,
    FileRecord,
    MANIFEST_FILE,
    SemanticVersion,
    Sha256,
)
from ..errors import MnemoError

from ._reference import parse_version, Reference

INDEX_FILE = "index.json"


class Entry(pydantic.BaseModel):
    """One version of one cell. Names of folders and files follow from it; none is taken from the index as it is."""

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
    def folder(self) -> str:
        """Where its bundle lies in the zoo."""
        return f"{self.name}/{self.version}"

    @property
    def address(self) -> str:
        """The sha256 of its manifest, which holds those of the other files: equal addresses, equal bundles."""
        return self.files[MANIFEST_FILE].sha256


class Index(AbstractDocument):
    """The content of index.json."""

    entries: tuple[Entry, ...] = ()

    @pydantic.field_validator("entries")
    @classmethod
    def _unique(cls, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        references = [entry.reference for entry in entries]
        twice = next((one for one in references if references.count(one) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is there twice")
        return entries

    @property
    def names(self) -> list[str]:
        """Names of the cells, each once."""
        return sorted({entry.name for entry in self.entries})

    def versions(self, name: str) -> list[Entry]:
        """The versions of a cell, the latest first."""
        entries = [entry for entry in self.entries if entry.name == name]
        return sorted(entries, key=lambda entry: parse_version(entry.version), reverse=True)

    def find(self, reference: Reference) -> Entry:
        """The latest version that the reference accepts."""
        versions = self.versions(reference.name)
        if not versions:
            raise MnemoError(f"there is no '{reference.name}' in the zoo{self._instead(reference.name)}")
        for entry in versions:
            if reference.accepts(parse_version(entry.version)):
                return entry
        there = ", ".join(entry.version for entry in versions)
        raise MnemoError(f"the zoo has no such version of {reference.name}; it has {there}")

    def _instead(self, name: str) -> str:
        nearest = difflib.get_close_matches(name, self.names, n=1)
        meant = f"; did you mean {nearest[0]}" if nearest else ""
        return f", which has {', '.join(self.names)}{meant}" if self.names else ", which is empty"
