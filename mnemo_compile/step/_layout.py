"""How tensors become rows: roles, numbers of a shape, chunks, samples and memory slots.

This is arithmetic on shapes, which needs only NumPy. Exported Python packages hold a copy of this file.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ._roles import Axes, describe, Description, Role, ROLES

Dtype = Literal["float32", "bfloat16"]
_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}


class MemorySlot(NamedTuple):
    """One array of memory per tensor: numbers that each coordinate, or each chunk, keeps from step to step."""

    name: str
    shape: tuple[int, ...] = ()
    """Shape of one entry: `()` is a number, `(20,)` is twenty of them."""
    per: Literal["coordinate", "chunk"] = "coordinate"
    """Whether each coordinate or each chunk has an entry."""
    dtype: Dtype = "float32"
    """Dtype of storage. Steps round to bfloat16 up or down in turns, so that the mean over steps is exact."""
    roles: tuple[Role, ...] | None = None
    """Roles of the tensors that have the slot, None for all. In the rows of other tensors it is zero."""

    def applies_to(self, role: str) -> bool:
        """Whether tensors of this role have the slot."""
        return self.roles is None or role in self.roles

    def row_shape(self, chunk_length: int) -> tuple[int, ...]:
        """Shape of the slot in the row of one chunk."""
        return self.shape if self.per == "chunk" else (chunk_length, *self.shape)

    def tensor_shape(self, shape: Sequence[int], chunk_length: int) -> tuple[int, ...]:
        """Shape of the slot for a tensor of this shape."""
        entries = (chunk_count(shape, chunk_length),) if self.per == "chunk" else tuple(shape)
        return (*entries, *self.shape)

    @property
    def number_bytes(self) -> int:
        """Bytes of one stored number."""
        return _BYTES[self.dtype]

    def bytes_per_parameter(self, role: Role, chunk_length: int) -> float:
        """Bytes per parameter of a tensor of this role that consists of whole chunks."""
        if not self.applies_to(role):
            return 0.0
        return self.number_bytes * math.prod(self.shape) / (chunk_length if self.per == "chunk" else 1)


def shape_numbers(shape: Sequence[int], chunk_length: int, description: Description | None = None) -> dict[str, float]:
    """The numbers of a tensor's shape that a cell receives.

    **Arguments:**

    - `shape`: the shape of the whole tensor, never of a shard.
    - `chunk_length`: coordinates of a chunk.
    - `description`: None stands for what follows from the shape.

    **Returns:**

    `coordinates` is the number of coordinates n, `area` that of one matrix of a batch, and `run` that of the
    coordinates before chunks restart. `matrix` is 1 for two axes or more, else 0. `aspect` is the longest axis over the
    product of the others, 1 for fewer than two axes. `role` is the place in `ROLES`. All but `run` are the same for any
    transpose.
    """
    n = math.prod(shape)
    matrix = len(shape) >= 2
    longest = max(shape, default=1)
    role, axes, _ = description or describe(shape)
    return {
        "coordinates": float(n),
        "area": float(n if axes is None else math.prod(axes.sizes[1:])),
        "run": float(chunk_run(shape, chunk_length)),
        "matrix": float(matrix),
        "aspect": longest * longest / n if matrix else 1.0,
        "role": float(ROLES.index(role)),
    }


TILED: tuple[Role, ...] = ("matrix", "convolution")
"""Roles of tensors whose direction is orthogonalised by tiles, in a cell that has tiles."""


def tile_slots(slots: Sequence[MemorySlot]) -> tuple[MemorySlot, ...]:
    """The memory slots of tensors that have tiles."""
    return tuple(slot for slot in slots if any(slot.applies_to(role) for role in TILED))


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How a batch of matrices is cut into tiles of equal sizes; those at the far ends may be smaller.

    The tiles are in the order batch, rows, columns. A tile that is taller than wide is turned.
    """

    sizes: tuple[int, int, int]
    """Matrices, rows and columns."""
    tile: tuple[int, int]
    """Rows and columns of a tile, before it is turned."""

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles along the rows and along the columns."""
        (_, rows, columns), (height, width) = self.sizes, self.tile
        return -(-rows // height), -(-columns // width)

    @property
    def count(self) -> int:
        """Tiles of all matrices."""
        return self.sizes[0] * math.prod(self.grid)

    @property
    def is_turned(self) -> bool:
        """Whether tiles are transposed, so that they have at least as many columns as rows."""
        return self.tile[0] > self.tile[1]

    @property
    def to_tiles(self) -> tuple[int, ...]:
        """The permutation from axes batch, tiles down, height, tiles across, width to those of turned tiles."""
        return (0, 1, 3, 4, 2) if self.is_turned else (0, 1, 3, 2, 4)

    @property
    def from_tiles(self) -> tuple[int, ...]:
        """The inverse of `to_tiles`."""
        return (0, 1, 4, 2, 3) if self.is_turned else (0, 1, 3, 2, 4)

    @property
    def padded(self) -> tuple[int, int]:
        """Rows and columns of a matrix whose tiles are all whole."""
        (down, across), (height, width) = self.grid, self.tile
        return down * height, across * width

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a tile after it is turned."""
        return (min(self.tile), max(self.tile))

    def sides(self) -> np.ndarray:
        """The longer side of each tile, without padding. Shape tiles, float32."""
        heights, widths = (
            np.minimum(side, size - side * np.arange(count))
            for side, size, count in zip(self.tile, self.sizes[1:], self.grid, strict=True)
        )
        sides = np.maximum(heights[:, None], widths[None, :]).reshape(-1)
        return np.tile(sides, self.sizes[0]).astype(np.float32)


def tiling(sizes: tuple[int, int, int], largest: int) -> Tiling:
    """The fewest tiles whose sides are at most `largest`, all of about the same size."""
    height, width = (-(-size // -(-size // largest)) for size in sizes[1:])
    return Tiling(sizes, (height, width))


def chunk_run(shape: Sequence[int], chunk_length: int) -> int:
    """How many consecutive coordinates share chunks before a new chunk starts.

    Chunks restart at each index of the leading axes, as far as the remaining axes still fill a chunk. So no chunk
    crosses a cut along the first axis of a large tensor. In a small tensor they never restart.
    """
    run = 1
    for size in reversed(shape):
        run *= size
        if run >= chunk_length:
            return run
    return run


def chunk_count(shape: Sequence[int], chunk_length: int) -> int:
    """Chunks of a tensor. The last one of each run is padded."""
    size, run = math.prod(shape), chunk_run(shape, chunk_length)
    return size // run * -(-run // chunk_length) if size else 0


def sampled_chunks(chunks: int, sample: int) -> list[int]:
    """Indices of the sampled chunks of a tensor: all chunks if there are at most `sample`, else evenly spaced ones."""
    count = min(chunks, sample)
    return [i * chunks // count for i in range(count)]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Tensors of these shapes as one array of chunks, where every tensor starts a new chunk.

    The caller leaves out tensors without coordinates.
    """

    shapes: tuple[tuple[int, ...], ...]
    chunk_length: int
    sample: int
    tile: int = 0
    """The largest side of a tile, 0 where no tensor has tiles."""
    descriptions: tuple[Description, ...] | None = None
    """Roles and axes of the tensors. None derives them from the shapes."""

    def __post_init__(self) -> None:
        if not all(map(math.prod, self.shapes)):
            raise ValueError(f"a tensor without coordinates cannot be laid out in chunks, got shapes {self.shapes}")

    @functools.cached_property
    def described(self) -> tuple[Description, ...]:
        """Role and axes of each tensor."""
        return tuple(map(describe, self.shapes)) if self.descriptions is None else self.descriptions

    @functools.cached_property
    def matrices(self) -> dict[int, tuple[Axes, Tiling]]:
        """The axes and the tiles of each tiled tensor, by its place."""
        return {
            place: (axes, tiling(axes.sizes, self.tile))
            for place, (role, axes, _) in enumerate(self.described)
            if self.tile and role in TILED and axes is not None
        }

    @functools.cached_property
    def tile_groups(self) -> dict[tuple[int, int], list[int]]:
        """The places of tiled tensors, by the shape of their tiles."""
        groups: dict[tuple[int, int], list[int]] = {}
        for place, (_, tiles) in self.matrices.items():
            groups.setdefault(tiles.shape, []).append(place)
        return groups

    @functools.cached_property
    def starts(self) -> tuple[int, ...]:
        """The first chunk of each tensor, and the number of all chunks."""
        return tuple(np.cumsum((0, *self.chunks)).tolist())

    @functools.cached_property
    def elementwise(self) -> np.ndarray:
        """Indices of the chunks of tensors without tiles."""
        ranges = [
            np.arange(start, start + chunks)
            for place, (start, chunks) in enumerate(zip(self.starts, self.chunks, strict=False))
            if place not in self.matrices
        ]
        return np.concatenate([np.zeros(0, np.int64), *ranges])

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """Coordinates of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @functools.cached_property
    def chunks(self) -> tuple[int, ...]:
        """Chunks of each tensor."""
        return tuple(chunk_count(shape, self.chunk_length) for shape in self.shapes)

    @functools.cached_property
    def runs(self) -> tuple[int, ...]:
        """Consecutive coordinates of each tensor that share chunks."""
        return tuple(chunk_run(shape, self.chunk_length) for shape in self.shapes)

    @functools.cached_property
    def owner(self) -> np.ndarray:
        """One-hot rows: `owner[c, t]` is 1 where chunk c belongs to tensor t. Shape chunks × tensors, float32."""
        return np.repeat(np.eye(len(self.shapes), dtype=np.float32), self.chunks, axis=0)

    @functools.cached_property
    def valid(self) -> np.ndarray:
        """Whether a place holds a coordinate and not padding. Shape chunks × length, bool."""
        rows = []
        for size, run in zip(self.sizes, self.runs, strict=True):
            places = np.arange(-(-run // self.chunk_length) * self.chunk_length)
            rows.append(np.tile((places < run).reshape(-1, self.chunk_length), (size // run, 1)))
        return np.concatenate(rows)

    @functools.cached_property
    def sampled(self) -> np.ndarray | None:
        """Indices of the sampled chunks, or None if all chunks are sampled."""
        indices = [
            start + index
            for start, chunks in zip(self.starts, self.chunks, strict=False)
            for index in sampled_chunks(chunks, self.sample)
        ]
        return None if len(indices) == sum(self.chunks) else np.array(indices)

    @functools.cached_property
    def shape_rows(self) -> dict[str, np.ndarray]:
        """`shape_numbers` of every tensor, in rows of float32."""
        rows = [
            shape_numbers(shape, self.chunk_length, each)
            for shape, each in zip(self.shapes, self.described, strict=True)
        ]
        return {
            name: np.array([row[name] for row in rows], np.float32) for name in shape_numbers((), self.chunk_length)
        }
