"""The sampled chunks of tensors."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._layout import sampled_chunks
from ._packs import Piece
from ._phases import CHUNK_LENGTH, SAMPLE_CHUNKS
from ._rows import Function, is_per_chunk, Rows, rows_shape, Tensors, within
from ._sums import sums
from ._tensors import chunks_of, Shape


class Sample(NamedTuple):
    """The sampled chunks of consecutive tensors."""

    first: int
    shapes: tuple[Shape, ...]

    @property
    def tensors(self) -> tuple[int, ...]:
        return tuple(range(self.first, self.first + len(self.shapes)))

    def summed(self, function: Function, names: Sequence[str], tensors: Tensors, rows: Rows) -> Rows:
        """The phase's rows, summed for each tensor."""
        chunks = [sampled(shape) for shape in self.shapes]
        owner = np.repeat(np.arange(len(chunks)), [len(some) for some in chunks])
        inputs: Rows = {}
        for name in names:
            if name == "valid":
                sizes = np.array([math.prod(shape) for shape in self.shapes])
                inputs[name] = within(sizes[owner] - np.concatenate(chunks) * CHUNK_LENGTH)
            elif name in tensors:
                parts = zip(self.tensors, self.shapes, chunks, strict=True)
                inputs[name] = jnp.concatenate([_at(name, tensors[name], *part) for part in parts])
            else:
                inputs[name] = rows[name][self.first + owner]
        return sums(function(inputs), owner)


def sampled(shape: Shape) -> np.ndarray:
    """The sampled chunks of a tensor."""
    return np.array(sampled_chunks(chunks_of(shape), SAMPLE_CHUNKS))


def _at(name: str, arrays: Mapping[int, jax.Array], tensor: int, shape: Shape, chunks: np.ndarray) -> jax.Array:
    """Rows of some chunks of a tensor."""
    if tensor not in arrays:
        return jnp.zeros(rows_shape(name, len(chunks)), jnp.float32)
    if len(chunks) == chunks_of(shape):
        return Piece(tensor, shape).take(name, arrays)
    if is_per_chunk(name):
        return arrays[tensor][chunks].astype(jnp.float32)
    # With an index per axis no device needs more of a tensor than its shard. The last chunk is never in such a sample.
    places = chunks[:, None] * CHUNK_LENGTH + np.arange(CHUNK_LENGTH)
    return arrays[tensor][np.unravel_index(places, shape)].astype(jnp.float32)
