"""Packs: small tensors, and the ends of large ones, whose chunks are the rows of one array."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._phases import CHUNK_LENGTH
from ._rows import Function, in_halves, is_per_chunk, missing, Rows, rows_shape, SLOTS, Tensors, with_zeros, within
from ._sharding import shard_like
from ._sums import sums
from ._tensors import Shape


class Piece(NamedTuple):
    """The coordinates of a tensor from `start` on: all of a small tensor, or the end of a large one."""

    tensor: int
    shape: Shape
    start: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape) - self.start

    @property
    def chunks(self) -> int:
        return -(-self.size // CHUNK_LENGTH)

    def take(self, name: str, arrays: Mapping[int, jax.Array]) -> jax.Array:
        """Rows of chunks, the last one padded with zeros. They are zero if the tensor lacks the array."""
        shape = rows_shape(name, self.chunks)
        if self.tensor not in arrays:
            return jnp.zeros(shape, jnp.float32)
        flat = self._flat(name, arrays[self.tensor])[self._first(name) :].astype(jnp.float32)
        missing = 0 if is_per_chunk(name) else -self.size % CHUNK_LENGTH
        padding = [(0, missing, 0), *((0, 0, 0) for _ in SLOTS[name].shape)]
        return lax.pad(flat, np.float32(0), padding).reshape(shape)

    def put(self, name: str, array: jax.Array, chunks: jax.Array) -> jax.Array:
        """The array with these chunks in their place."""
        size = self.chunks if is_per_chunk(name) else self.size
        new = self._flat(name, chunks)[:size].astype(array.dtype)
        if self.start:
            new = lax.dynamic_update_slice_in_dim(self._flat(name, array), new, self._first(name), 0)
        # Without this the partitioner would replicate the array on every device.
        return shard_like(new.reshape(array.shape), array)

    def _first(self, name: str) -> int:
        return self.start // CHUNK_LENGTH if is_per_chunk(name) else self.start

    def _flat(self, name: str, array: jax.Array) -> jax.Array:
        return array.reshape(-1, *SLOTS[name].shape)


class Pack(NamedTuple):
    """Pieces whose chunks are the rows of one array."""

    pieces: tuple[Piece, ...]

    @property
    def tensors(self) -> tuple[int, ...]:
        return tuple(piece.tensor for piece in self.pieces)

    def summed(self, function: Function, names: Sequence[str], tensors: Tensors, rows: Rows) -> Rows:
        """The phase's rows, summed for each piece."""
        owner = np.repeat(np.arange(len(self.pieces)), [piece.chunks for piece in self.pieces])
        return sums(function(self._inputs(names, tensors, rows)), owner)

    def mapped(self, function: Function, names: Sequence[str], tensors: Tensors, rows: Rows) -> Tensors:
        """The tensors with the phase's outputs in place of the inputs of the same names."""
        tensors = {name: dict(arrays) for name, arrays in tensors.items()}
        ends = np.cumsum([piece.chunks for piece in self.pieces])[:-1]
        absent = missing(self.tensors, tensors)
        inputs = self._inputs([name for name in names if name not in absent], tensors, rows)
        for name, chunks in in_halves(with_zeros(function, names, absent))(inputs).items():
            for piece, part in zip(self.pieces, jnp.split(chunks, ends), strict=True):
                if piece.tensor in tensors[name]:
                    tensors[name][piece.tensor] = piece.put(name, tensors[name][piece.tensor], part)
        return tensors

    def _inputs(self, names: Sequence[str], tensors: Tensors, rows: Rows) -> Rows:
        owner = np.repeat(self.tensors, [piece.chunks for piece in self.pieces])
        inputs: Rows = {}
        for name in names:
            if name == "valid":
                left = [piece.size - np.arange(piece.chunks) * CHUNK_LENGTH for piece in self.pieces]
                inputs[name] = within(np.concatenate(left))
            elif name in tensors:
                inputs[name] = jnp.concatenate([piece.take(name, tensors[name]) for piece in self.pieces])
            else:
                inputs[name] = rows[name][owner]
        return inputs
