"""The form of tiles: parts of matrices."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._forms import AbstractForm
from ._layout import Tiling
from ._roles import Axes
from ._rows import Rows
from ._tensors import Shape

BATCH, ROW, COLUMN = range(3)


class Side(NamedTuple):
    """An axis of a view, and what it is in the matrices."""

    size: int
    kind: int
    """`BATCH`, `ROW` or `COLUMN`."""
    rank: int
    """Its place among all axes when these are in the order batch, rows, columns."""


@dataclasses.dataclass(frozen=True)
class Tiles(AbstractForm):
    """Rows of tiles. A block consists of whole tiles, but at the far ends of a matrix."""

    view: Shape
    units: Shape
    lanes: tuple[int, ...]
    sides: tuple[Side, ...]
    """The axes of a block. Their sizes are those of a whole lane."""
    tile: tuple[int, int]

    def count(self, sizes: Shape) -> int:
        return self._tiling(sizes).count

    def constants(self, sizes: Shape) -> Rows:
        return {"tile.side": jnp.asarray(self._tiling(sizes).sides())}

    def array_sizes(self, name: str, sizes: Sequence[int]) -> Shape:
        return tuple(sizes)

    def row_shape(self, name: str) -> Shape:
        return self._tiling(self.whole()).shape

    def to_rows(self, name: str, block: jax.Array) -> jax.Array:
        tiling = self._tiling(block.shape)
        matrices = block.transpose(self._order()).reshape(tiling.sizes)
        padding = [(0, 0, 0)]
        padding += [(0, whole - size, 0) for whole, size in zip(tiling.padded, tiling.sizes[1:], strict=True)]
        (down, across), (height, width) = tiling.grid, tiling.tile
        grid = lax.pad(matrices, block.dtype.type(0), padding).reshape(-1, down, height, across, width)
        return grid.transpose(tiling.to_tiles).reshape(-1, *tiling.shape)

    def to_block(self, name: str, rows: jax.Array, sizes: Shape) -> jax.Array:
        tiling, order = self._tiling(sizes), self._order()
        (down, across), (height, width) = tiling.grid, tiling.sizes[1:]
        grid = rows.reshape(-1, down, across, *tiling.shape).transpose(tiling.from_tiles)
        matrices = grid.reshape(-1, *tiling.padded)[:, :height, :width]
        return matrices.reshape([sizes[axis] for axis in order]).transpose(np.argsort(order))

    def _order(self) -> list[int]:
        """The axes of a block in the order batch, rows, columns."""
        return sorted(range(len(self.sides)), key=lambda axis: self.sides[axis].rank)

    def _tiling(self, sizes: Sequence[int]) -> Tiling:
        """The tiles of a block."""
        batch, rows, columns = (
            math.prod(size for size, side in zip(sizes, self.sides, strict=True) if side.kind == kind)
            for kind in (BATCH, ROW, COLUMN)
        )
        return Tiling((batch, rows, columns), self.tile)


def whole_tiles(axes: Axes, tiling: Tiling) -> Tiles:
    """All of a tensor's tiles."""
    sides = _sides(axes, tiling)
    return Tiles(tuple(side.size for side in sides), _units(sides, tiling), (), sides, tiling.tile)


def tiles_in_lanes(axes: Axes, tiling: Tiling, devices: int) -> Tiles:
    """The tiles with a lane for each part of the first axis that devices divide evenly without cutting a tile."""
    whole = whole_tiles(axes, tiling)
    first, unit = whole.sides[0], whole.units[0]
    lane = 1 if first.kind == COLUMN or first.size % unit else math.gcd(first.size // unit, devices)
    if lane == 1:
        return whole
    size = first.size // lane
    sides = (first._replace(size=size), *whole.sides[1:])
    return Tiles((lane, size, *whole.view[1:]), (lane, *whole.units), (0,), sides, tiling.tile)


def _sides(axes: Axes, tiling: Tiling) -> tuple[Side, ...]:
    """The axes of a tensor in its own order. Axes that are one axis of the matrices are merged.

    The batch is a part of the rows if these are whole tiles.
    """
    sizes = list(axes.sizes)
    if sizes[ROW] % tiling.tile[0] == 0 and _is_stack(axes):
        sizes = [1, sizes[BATCH] * sizes[ROW], sizes[COLUMN]]
    fragments = _fragments(axes, sizes)
    sides: list[Side] = []
    for axis in range(len(axes.split)):
        for side in fragments[axis]:
            before = sides[-1] if sides else None
            if before and before.kind == side.kind and before.rank + 1 == side.rank:
                sides[-1] = Side(before.size * side.size, side.kind, side.rank)
            else:
                sides.append(side)
    return tuple(sides)


def _is_stack(axes: Axes) -> bool:
    """Whether the matrices lie one below the other in memory."""
    return list(axes.order) == sorted(axes.order)


def _fragments(axes: Axes, sizes: Sequence[int]) -> list[list[Side]]:
    """For each axis of `split`, the parts of it that are of the batch, the rows or the columns."""
    fragments: list[list[Side]] = [[] for _ in axes.split]
    remaining, kind, rank = list(sizes), BATCH, 0
    for axis in axes.order:
        size = axes.split[axis]
        while size > 1:
            while remaining[kind] == 1:
                kind += 1
            part = min(size, remaining[kind])
            fragments[axis].append(Side(part, kind, rank))
            size, remaining[kind], rank = size // part, remaining[kind] // part, rank + 1
    return fragments


def _units(sides: Sequence[Side], tiling: Tiling) -> Shape:
    """The entries of each axis that hold whole tiles together with all of the later axes of the same kind."""
    units = []
    for side in sides:
        others = [other for other in sides if other.kind == side.kind]
        if side.kind == BATCH:
            units.append(1)
        elif side.rank > min(other.rank for other in others):
            units.append(side.size)
        else:
            tile, inner = tiling.tile[side.kind - 1], math.prod(other.size for other in others) // side.size
            units.append(tile // math.gcd(tile, inner))
    return tuple(units)
