"""How tensors become rows: chunks, the sample of chunks, and the facts of a shape. Pure arithmetic on shapes."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

Role = Literal["vector", "matrix", "embedding", "head", "convolution"]
"""What a tensor is to its network."""
ROLES: tuple[Role, ...] = ("vector", "matrix", "embedding", "head", "convolution")
"""A cell is told the place in this."""

TALL = 16
"""A matrix whose longer axis is this many times the other is taken for an embedding."""


def shape_role(shape: Sequence[int]) -> Role:
    """The role of a tensor of which nothing is known but its shape; the same for any transpose of it.

    A head looks like a matrix or an embedding, and is one where nobody says otherwise. Axes of size 1 do not count.
    """
    axes = sorted(size for size in shape if size != 1)
    if len(axes) < 2:
        return "vector"
    if len(axes) > 2:
        return "convolution"
    return "embedding" if axes[1] >= TALL * axes[0] else "matrix"


def shape_facts(shape: Sequence[int], role: Role | None = None) -> dict[str, float]:
    """What a cell is told of a tensor; without a role, the same for a tensor and for any transpose of it.

    `coordinates` is their number n, `matrix` is 1 for two axes and more and else 0, `aspect` is the longest axis over
    the product of the others (1 for fewer than two axes), `role` the place in [`ROLES`][], [`shape_role`][]'s where it
    is not given.
    """
    n = math.prod(shape)
    matrix = len(shape) >= 2
    longest = max(shape, default=1)
    return {
        "coordinates": float(n),
        "matrix": float(matrix),
        "aspect": longest * longest / n if matrix else 1.0,
        "role": float(ROLES.index(shape_role(shape) if role is None else role)),
    }


def chunk_count(coordinates: int, chunk_length: int) -> int:
    """Chunks that hold this many coordinates, the last one padded."""
    return -(-coordinates // chunk_length)


def sampled_chunks(chunks: int, sample: int) -> list[int]:
    """The chunks, by their index in the whole tensor, that attention and the direction's spread are taken over."""
    taken = min(chunks, sample)
    return [i * chunks // taken for i in range(taken)]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Tensors of these shapes as one array of chunks, every tensor starting a chunk of its own.

    A tensor without coordinates has nothing to step and is left out by the caller.
    """

    shapes: tuple[tuple[int, ...], ...]
    chunk_length: int
    sample: int
    roles: tuple[Role, ...] | None = None
    """Of the tensors, or None for those of their shapes."""

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
        """Indices of the sampled chunks, or None where that is all of them."""
        starts = np.cumsum((0, *self.chunks))
        indices = [
            start + index
            for start, chunks in zip(starts, self.chunks, strict=False)
            for index in sampled_chunks(chunks, self.sample)
        ]
        return None if len(indices) == sum(self.chunks) else np.array(indices)

    @functools.cached_property
    def facts(self) -> dict[str, np.ndarray]:
        """`shape_facts` of every tensor, in rows."""
        roles = self.roles or [None] * len(self.shapes)
        rows = [shape_facts(shape, role) for shape, role in zip(self.shapes, roles, strict=True)]
        return {name: np.array([row[name] for row in rows], np.float32) for name in shape_facts(())}
