"""The sampled chunks of tensors."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._chunks import whole_chunks, within
from ._layout import chunk_count, chunk_run, sampled_chunks
from ._packs import Piece
from ._phases import CHUNK_LENGTH, SAMPLE_CHUNKS
from ._rows import Function, is_per_chunk, Rows, Tensors
from ._sums import sums
from ._tensors import Shape


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
                left = [_left(shape, some) for shape, some in zip(self.shapes, chunks, strict=True)]
                inputs[name] = within(np.concatenate(left))
            elif name in tensors:
                parts = zip(self.tensors, self.shapes, chunks, strict=True)
                inputs[name] = jnp.concatenate([_at(name, tensors, *part) for part in parts])
            else:
                inputs[name] = rows[name][self.first + owner]
        return sums(function(inputs), owner)


def sampled(shape: Shape) -> np.ndarray:
    """The sampled chunks of a tensor."""
    return np.array(sampled_chunks(chunk_count(shape, CHUNK_LENGTH), SAMPLE_CHUNKS))


def _starts(shape: Shape, chunks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each chunk, where its run starts in the tensor, and where it starts in the run."""
    run = chunk_run(shape, CHUNK_LENGTH)
    of_run, within_run = np.divmod(chunks, chunk_count((run,), CHUNK_LENGTH))
    return of_run * run, within_run * CHUNK_LENGTH


def _left(shape: Shape, chunks: np.ndarray) -> np.ndarray:
    """Coordinates from the start of each chunk to the end of its run."""
    return chunk_run(shape, CHUNK_LENGTH) - _starts(shape, chunks)[1]


def _at(name: str, tensors: Tensors, tensor: int, shape: Shape, chunks: np.ndarray) -> jax.Array:
    """Rows of some chunks of a tensor."""
    arrays: Mapping[int, jax.Array] = tensors[name]
    if tensor not in arrays or len(chunks) == chunk_count(shape, CHUNK_LENGTH):
        piece = Piece(tensor, whole_chunks(shape))
        return piece.take(name, tensors)[: len(chunks)]
    if is_per_chunk(name):
        return arrays[tensor][chunks].astype(jnp.float32)
    (of_run, within_run), left = _starts(shape, chunks), _left(shape, chunks)
    places = np.minimum(np.arange(CHUNK_LENGTH), left[:, None] - 1) + (of_run + within_run)[:, None]
    # With an index per axis no device needs more of a tensor than its shard.
    values = arrays[tensor][np.unravel_index(places, shape)].astype(jnp.float32)
    if left.min() >= CHUNK_LENGTH:
        return values
    is_valid = within(left).reshape(*values.shape[:2], *(1 for _ in values.shape[2:]))
    return jnp.where(is_valid, values, 0)
