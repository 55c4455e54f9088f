"""Forms: how a tensor, or a block of it, becomes rows, and rows become a tensor again."""

import abc
import math
from collections.abc import Sequence

import jax
import numpy as np

from ._rows import Rows
from ._tensors import Shape


class AbstractForm(abc.ABC):
    """The rows of tensors of one shape. A block is a part of a tensor in the shape `view`, without its lanes."""

    view: Shape
    """The tensor's axes. Some may be split or merged."""
    units: Shape
    """For each axis of the view how many consecutive entries belong into one block."""
    lanes: tuple[int, ...]
    """Axes of the view that are batch axes of the arithmetic. Devices that divide one evenly exchange no rows."""

    def whole(self) -> Shape:
        """The sizes of a block that holds all of a lane."""
        return tuple(size for axis, size in enumerate(self.view) if axis not in self.lanes)

    @abc.abstractmethod
    def count(self, sizes: Shape) -> int:
        """Rows of a block of these sizes."""

    @abc.abstractmethod
    def constants(self, sizes: Shape) -> Rows:
        """Inputs of phases that follow from the sizes of a block."""

    @abc.abstractmethod
    def array_sizes(self, name: str, sizes: Sequence[int]) -> Shape:
        """The sizes that an input's array has where a tensor has these sizes. The axes of a slot's entry come after."""

    @abc.abstractmethod
    def row_shape(self, name: str) -> Shape:
        """Shape of an input's row."""

    @abc.abstractmethod
    def to_rows(self, name: str, block: jax.Array) -> jax.Array:
        """The rows of a block, padded with zeros."""

    @abc.abstractmethod
    def to_block(self, name: str, rows: jax.Array, sizes: Shape) -> jax.Array:
        """The block of these sizes that has these rows."""

    def least(self) -> int:
        """Coordinates of the smallest block of all lanes."""
        return math.prod(np.minimum(self.units, self.view).tolist())
