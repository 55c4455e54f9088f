"""How matrices become rows of tiles: blocks of tiles of one shape, from one tensor or several."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._layout import Tiling
from ._roles import Axes
from ._rows import put


class OfTensor(NamedTuple):
    """The matrices of a tiled tensor."""

    tensor: int
    """The tensor's row."""
    axes: Axes
    tiling: Tiling


class Segment:
    """Tiles of one tensor: all those of a range of its matrices, rows and columns.

    **Arguments:**

    - `matrices`: the tensor.
    - `starts`: the first matrix, row and column.
    - `stops`: the end of each range. Ranges consist of whole tiles, but for those at the far ends.
    """

    def __init__(self, matrices: OfTensor, starts: tuple[int, int, int], stops: tuple[int, int, int]):
        self.tensor, self.axes, whole = matrices
        self.starts = starts
        self.sizes = (stops[0] - starts[0], stops[1] - starts[1], stops[2] - starts[2])
        self.tiling = Tiling(self.sizes, whole.tile)
        """The tiles of the segment alone."""
        (down, across), (height, width) = self.tiling.grid, self.tiling.tile
        self.padding = (self.tiling.padded[1] - self.sizes[2], self.tiling.padded[0] - self.sizes[1])
        """Columns and rows of zeros at the far ends."""
        self.grid = (self.sizes[0], down, height, across, width)
        self.contiguous = contiguous_strides(self.axes)
        """Strides of matrices, rows and columns in a contiguous tensor, or None if there are no such strides."""

    def read(self, tensor: Tensor) -> Tensor:
        """The tiles, padded with zeros. They are a view of the tensor if possible."""
        part = self._view(tensor)
        if part is None:
            part = torch.take(tensor, self._places(tensor.device))
        if any(self.padding):
            part = torch.nn.functional.pad(part, (0, self.padding[0], 0, self.padding[1]))
        return part.view(self.grid).permute(self.tiling.to_tiles).reshape(-1, *self.tiling.shape)

    def write(self, tiles: Tensor, tensor: Tensor) -> None:
        """Writes tiles back."""
        grid = tiles.view([self.grid[axis] for axis in self.tiling.to_tiles]).permute(self.tiling.from_tiles)
        part = self._view(tensor)
        if part is not None and not any(self.padding):
            part.view(self.grid).copy_(grid)
            return
        _, down, height, across, width = self.grid
        values = grid.reshape(-1, down * height, across * width)[:, : self.sizes[1], : self.sizes[2]]
        if part is not None:
            part.copy_(values)
        else:
            put(tensor, self._places(tensor.device), values)

    def _view(self, tensor: Tensor) -> Tensor | None:
        """The segment as matrices × rows × columns, or None if that is no view of the tensor."""
        strides = self.contiguous if tensor.is_contiguous() else matrix_strides(tensor, self.axes)
        if strides is None:
            return None
        whole = tensor.as_strided(self.axes.sizes, strides)
        if self.sizes == self.axes.sizes:
            return whole
        return whole[tuple(slice(start, start + size) for start, size in zip(self.starts, self.sizes, strict=True))]

    def _places(self, device: torch.device) -> Tensor:
        """The coordinates of the segment in the tensor. Shape matrices × rows × columns."""
        (_, rows, columns), (first, row, column) = self.axes.sizes, self.starts
        batch, height, width = (torch.arange(size, device=device) for size in self.sizes)
        place = ((batch[:, None, None] + first) * rows + (height[:, None] + row)) * columns + (width + column)
        strides = _row_major(self.axes.split)
        total = torch.zeros((), dtype=torch.int64, device=device)
        for axis in reversed(self.axes.order):
            size = self.axes.split[axis]
            total = total + place % size * strides[axis]
            place = place // size
        return total


class TileBlock:
    """Tiles of one shape: at most a block of coordinates, or a single tile."""

    def __init__(self, segments: Sequence[Segment], sides: Tensor):
        self.segments = segments
        self.sides = sides
        """The longer side of each tile, without padding."""
        self.counts = [segment.tiling.count for segment in segments]
        tensors = [segment.tensor for segment in segments]
        self.tensor = tensors[0] if len(set(tensors)) == 1 else None
        """The row of the tensor, if there is only one."""
        owners = np.repeat(np.array(tensors, np.int32), self.counts)
        self.owner = torch.tensor(owners, device=sides.device)

    def gather(self, tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
        """The tiles of parameters, gradients or a slot."""
        pieces = [segment.read(tensors[segment.tensor]) for segment in self.segments]
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).to(dtype)

    def scatter(self, tiles: Tensor, tensors: list[Tensor]) -> None:
        """Writes tiles back."""
        for segment, piece in zip(self.segments, tiles.split(self.counts), strict=True):
            segment.write(piece, tensors[segment.tensor])

    def of_tensors(self, rows: Tensor) -> Tensor:
        """For each tile the row of its tensor, or a row that broadcasts over the tiles."""
        if self.tensor is not None:
            return rows[self.tensor : self.tensor + 1]
        return rows.index_select(0, self.owner)


def tile_blocks(
    tensors: Sequence[OfTensor], block_size: int, device: torch.device, dtype: torch.dtype
) -> Iterator[TileBlock]:
    """Blocks of the tiles of these tensors, whose tiles have one shape."""
    shape = tensors[0].tiling.shape
    most = max(block_size // math.prod(shape), 1)
    block: list[Segment] = []
    for matrices in tensors:
        if sum(segment.tiling.count for segment in block) + matrices.tiling.count > most and block:
            yield _block(block, device, dtype)
            block = []
        if matrices.tiling.count <= most:
            block.append(Segment(matrices, (0, 0, 0), matrices.axes.sizes))
            continue
        for segment in _cut(matrices, most):
            yield _block([segment], device, dtype)
    if block:
        yield _block(block, device, dtype)


def _block(segments: Sequence[Segment], device: torch.device, dtype: torch.dtype) -> TileBlock:
    sides = [side for segment in segments for side in segment.tiling.sides().tolist()]
    return TileBlock(tuple(segments), torch.tensor(sides, dtype=dtype, device=device))


def _cut(matrices: OfTensor, most: int) -> Iterator[Segment]:
    """Segments of at most so many tiles: of whole matrices, else of whole rows of tiles, else of parts of them."""
    (count, rows, columns), (height, width) = matrices.tiling.sizes, matrices.tiling.tile
    down, across = matrices.tiling.grid
    step = (max(most // (down * across), 1), max(most // across, 1) * height, most * width)
    for matrix in range(0, count, step[0]):
        for row in range(0, rows, step[1]):
            for column in range(0, columns, step[2]):
                stops = (min(matrix + step[0], count), min(row + step[1], rows), min(column + step[2], columns))
                yield Segment(matrices, (matrix, row, column), stops)


def contiguous_strides(axes: Axes) -> tuple[int, int, int] | None:
    """Strides of matrices, rows and columns of a contiguous tensor, or None if there are no such strides."""
    return _strides(_row_major(axes.split), axes)


def matrix_strides(tensor: Tensor, axes: Axes) -> tuple[int, int, int] | None:
    """Strides of matrices, rows and columns of a tensor, or None if there are no such strides."""
    if tensor.is_contiguous():
        return contiguous_strides(axes)
    return _strides(tensor.stride(), axes) if tuple(tensor.shape) == axes.split else None


def _strides(split: Sequence[int], axes: Axes) -> tuple[int, int, int] | None:
    """Strides of matrices, rows and columns, from those of the axes that a tensor is split into. None if impossible."""
    # The axes that are left, the last one first: an axis of matrices may join several of them or be a part of one.
    parts = [(axes.split[axis], split[axis]) for axis in axes.order]
    strides: list[int] = []
    for size in reversed(axes.sizes):
        merged, stride = 1, 1
        while merged < size:
            length, step = parts.pop()
            taken = min(length, size // merged)
            if taken < length:
                parts.append((length // taken, step * taken))
            if taken > 1 and merged > 1 and step != stride * merged:
                return None
            stride = step if merged == 1 else stride
            merged *= taken
        strides.insert(0, stride)
    matrices, rows, columns = strides
    return matrices, rows, columns


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))
