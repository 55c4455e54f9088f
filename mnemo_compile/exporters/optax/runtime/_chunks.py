"""The form of chunks: consecutive coordinates."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._forms import AbstractForm
from ._phases import CHUNK_LENGTH
from ._rows import is_per_chunk, Rows, SLOTS
from ._tensors import run_axis, Shape


@dataclasses.dataclass(frozen=True)
class Chunks(AbstractForm):
    """Rows of chunks. The last axis of the view holds coordinates that share chunks, and the last chunk is padded."""

    view: Shape
    units: Shape
    lanes: tuple[int, ...]

    def count(self, sizes: Shape) -> int:
        return math.prod(self.array_sizes("", sizes))

    def constants(self, sizes: Shape) -> Rows:
        left = sizes[-1] - CHUNK_LENGTH * np.arange(_chunks(sizes[-1]))
        return {"valid": within(np.tile(left, math.prod(sizes[:-1])))}

    def array_sizes(self, name: str, sizes: Sequence[int]) -> Shape:
        return (*sizes[:-1], _chunks(sizes[-1])) if not name or is_per_chunk(name) else tuple(sizes)

    def row_shape(self, name: str) -> Shape:
        return SLOTS[name].row_shape(CHUNK_LENGTH)

    def to_rows(self, name: str, block: jax.Array) -> jax.Array:
        if not is_per_chunk(name):
            last = block.ndim - len(SLOTS[name].shape) - 1
            padding = [(0, -size % CHUNK_LENGTH if axis == last else 0, 0) for axis, size in enumerate(block.shape)]
            block = lax.pad(block, block.dtype.type(0), padding)
        return block.reshape(-1, *self.row_shape(name))

    def to_block(self, name: str, rows: jax.Array, sizes: Shape) -> jax.Array:
        entry = SLOTS[name].shape
        if is_per_chunk(name):
            return rows.reshape(*self.array_sizes(name, sizes), *entry)
        padded = rows.reshape(*sizes[:-1], _chunks(sizes[-1]) * CHUNK_LENGTH, *entry)
        return lax.slice_in_dim(padded, 0, sizes[-1], axis=len(sizes) - 1)


def whole_chunks(shape: Shape) -> Chunks:
    """All of a tensor's chunks."""
    return chunks_in_lanes(shape, devices=1)


def chunks_in_lanes(shape: Shape, devices: int) -> Chunks:
    """The chunks with a lane for each axis that devices divide evenly without cutting a chunk.

    Axes before those that share chunks are not merged, so that compilers can update views of them in place.
    """
    axis = run_axis(shape)
    sizes = (*shape[:axis], math.prod(shape[axis:]))
    units = (*(1 for _ in shape[:axis]), CHUNK_LENGTH)
    view: list[int] = []
    of_view: list[int] = []
    lanes: list[int] = []
    for size, unit in zip(sizes, units, strict=True):
        lane = 1 if size % unit else math.gcd(size // unit, devices)
        if lane > 1:
            lanes.append(len(view))
            view.append(lane)
            of_view.append(lane)
        view.append(size // lane)
        of_view.append(unit)
    return Chunks(tuple(view), tuple(of_view), tuple(lanes))


def within(left: np.ndarray) -> jax.Array:
    """The places of chunks that hold coordinates; `left` counts coordinates from the start of each chunk to the end."""
    return jnp.arange(CHUNK_LENGTH) < jnp.asarray(np.minimum(left, CHUNK_LENGTH))[:, None]


def _chunks(coordinates: int) -> int:
    return -(-coordinates // CHUNK_LENGTH)
