"""How tensors become rows: numbers of a shape, chunks, samples and memory slots.

This is arithmetic on shapes, which needs only NumPy. Exported Python packages hold a copy of this file.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ._roles import Role, ROLES, shape_role

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
        entries = (chunk_count(math.prod(shape), chunk_length),) if self.per == "chunk" else tuple(shape)
        return (*entries, *self.shape)

    def bytes_per_parameter(self, role: Role, chunk_length: int) -> float:
        """Bytes per parameter of a tensor of this role that consists of whole chunks."""
        if not self.applies_to(role):
            return 0.0
        return _BYTES[self.dtype] * math.prod(self.shape) / (chunk_length if self.per == "chunk" else 1)


def shape_numbers(shape: Sequence[int], role: str | None = None) -> dict[str, float]:
    """The numbers of a tensor's shape that a cell receives. They are the same for any transpose of the tensor.

    **Arguments:**

    - `shape`: the shape of the whole tensor, never of a shard.
    - `role`: one of `ROLES`; None stands for the role from `shape_role`.

    **Returns:**

    `coordinates` is the number of coordinates n. `matrix` is 1 for two axes or more, else 0. `aspect` is the longest
    axis over the product of the others, 1 for fewer than two axes. `role` is the place in `ROLES`.
    """
    n = math.prod(shape)
    matrix = len(shape) >= 2
    longest = max(shape, default=1)
    roles: Sequence[str] = ROLES
    return {
        "coordinates": float(n),
        "matrix": float(matrix),
        "aspect": longest * longest / n if matrix else 1.0,
        "role": float(roles.index(shape_role(shape) if role is None else role)),
    }


def chunk_count(coordinates: int, chunk_length: int) -> int:
    """Chunks that hold this many coordinates, the last one padded."""
    return -(-coordinates // chunk_length)


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
    roles: tuple[Role, ...] | None = None
    """Roles of the tensors. None derives them from the shapes."""

    def __post_init__(self) -> None:
        if not all(map(math.prod, self.shapes)):
            raise ValueError(f"a tensor without coordinates cannot be laid out in chunks, got shapes {self.shapes}")

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """Coordinates of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @functools.cached_property
    def chunks(self) -> tuple[int, ...]:
        """Chunks of each tensor."""
        return tuple(chunk_count(size, self.chunk_length) for size in self.sizes)

    @functools.cached_property
    def owner(self) -> np.ndarray:
        """One-hot rows: `owner[c, t]` is 1 where chunk c belongs to tensor t. Shape chunks × tensors, float32."""
        return np.repeat(np.eye(len(self.shapes), dtype=np.float32), self.chunks, axis=0)

    @functools.cached_property
    def valid(self) -> np.ndarray:
        """Whether a place holds a coordinate and not padding. Shape chunks × length, bool."""
        rows = [
            np.arange(chunks * self.chunk_length).reshape(chunks, self.chunk_length) < size
            for size, chunks in zip(self.sizes, self.chunks, strict=True)
        ]
        return np.concatenate(rows)

    @functools.cached_property
    def sampled(self) -> np.ndarray | None:
        """Indices of the sampled chunks, or None if all chunks are sampled."""
        starts = np.cumsum((0, *self.chunks))
        indices = [
            start + index
            for start, chunks in zip(starts, self.chunks, strict=False)
            for index in sampled_chunks(chunks, self.sample)
        ]
        return None if len(indices) == sum(self.chunks) else np.array(indices)

    @functools.cached_property
    def shape_rows(self) -> dict[str, np.ndarray]:
        """`shape_numbers` of every tensor, in rows of float32."""
        roles = self.roles or [None] * len(self.shapes)
        rows = [shape_numbers(shape, role) for shape, role in zip(self.shapes, roles, strict=True)]
        return {name: np.array([row[name] for row in rows], np.float32) for name in shape_numbers(())}
