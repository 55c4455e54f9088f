"""How a tensor is given to the functions: as a batch of matrices."""

import math
from typing import NamedTuple

import numpy as np

from ...step import Axes, Layout


class View(NamedTuple):
    """A tensor as an array of batch × rows × columns."""

    shape: tuple[int, ...]
    axes: Axes
    has_tiles: bool

    def of(self, tensor: np.ndarray) -> np.ndarray:
        """The array that the functions take."""
        return tensor.reshape(self.axes.split).transpose(self.axes.order).reshape(self.axes.sizes)

    def tensor(self, array: np.ndarray) -> np.ndarray:
        """The tensor of such an array."""
        parts = [self.axes.split[axis] for axis in self.axes.order]
        return array.reshape(parts).transpose(np.argsort(self.axes.order)).reshape(self.shape)


def views_of(layout: Layout) -> list[View]:
    """The views of the tensors of a layout.

    A tensor without tiles has as many columns as consecutive coordinates share chunks.
    """
    views = []
    for place, (shape, run) in enumerate(zip(layout.shapes, layout.runs, strict=True)):
        sizes = (1, math.prod(shape) // run, run)
        tiled = layout.matrices.get(place)
        views.append(View(shape, tiled[0] if tiled else Axes(sizes, (0, 1, 2), sizes), tiled is not None))
    return views
