"""What every target provides."""

import abc
import pathlib

from ..verify import AbstractArtifact
from ..frozen import FrozenCell
from ..program import CompiledCell


class AbstractExporter(abc.ABC):
    """A target: writes a cell as an artifact, and opens one for verification."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Such as `torch`; also the folder's."""

    @abc.abstractmethod
    def emit(self, frozen: FrozenCell, compiled: CompiledCell, folder: pathlib.Path) -> None:
        """Writes the artifact into an empty folder; the same bytes for the same cell."""

    @abc.abstractmethod
    def text(self, frozen: FrozenCell, compiled: CompiledCell) -> str:
        """The generated code, to be read."""

    @abc.abstractmethod
    def open(self, frozen: FrozenCell, folder: pathlib.Path) -> AbstractArtifact:
        """Loads what [`emit`][] wrote, as a user would."""
