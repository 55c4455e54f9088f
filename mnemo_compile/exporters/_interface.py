"""The interface of a target."""

import abc
import pathlib

from ..frozen import FrozenCell
from ..program import CompiledCell
from ..verify import AbstractExport


class AbstractExporter(abc.ABC):
    """A target: writes a cell as an export, and opens one for verification."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The name of the target, such as `torch`, and of its folder."""

    @abc.abstractmethod
    def emit(self, frozen: FrozenCell, compiled: CompiledCell, folder: pathlib.Path) -> None:
        """Writes the export into an empty folder. The same cell gives the same bytes."""

    @abc.abstractmethod
    def text(self, frozen: FrozenCell, compiled: CompiledCell) -> str:
        """The generated code as text for readers."""

    @abc.abstractmethod
    def open(self, frozen: FrozenCell, folder: pathlib.Path) -> AbstractExport:
        """Loads what `emit` wrote, as a user would."""
