"""Shared by packs, samples and sweeps: rows of inputs over chunks, and functions over rows."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._layout import MemorySlot
from ._phases import CHUNK_LENGTH, MEMORY
from ._tensors import Shape

Rows = dict[str, jax.Array]
"""Named arrays with a row per tensor, or per chunk."""
Function = Callable[[Rows], Rows]
"""A phase of the cell, or a function derived from one."""
Tensors = dict[str, dict[int, jax.Array]]
"""For each input over chunks, such as `grad`, the arrays of the tensors that have it, by the tensor's number.

An array has the tensor's axes and then those of an entry. A slot per chunk has one axis of chunks in their place.
"""

Views = dict[str, list[jax.Array]]
"""For each input over chunks, the arrays of the tensors of one sweep."""


SLOTS = {"param": MemorySlot("param"), "grad": MemorySlot("grad"), **{f"memory.{slot.name}": slot for slot in MEMORY}}
"""The slots of coordinates and chunks, by the names of the inputs over chunks."""


def is_per_chunk(name: str) -> bool:
    """Whether an input has an entry per chunk and not per coordinate."""
    return SLOTS[name].per == "chunk"


def rows_shape(name: str, chunks: int) -> Shape:
    """Shape of an input's rows."""
    return (chunks, *SLOTS[name].row_shape(CHUNK_LENGTH))


def within(left: np.ndarray) -> jax.Array:
    """The places of chunks that hold coordinates; `left` counts coordinates from the start of each chunk to the end."""
    return jnp.arange(CHUNK_LENGTH) < jnp.asarray(np.minimum(left, CHUNK_LENGTH))[:, None]


def missing(members: Sequence[int], tensors: Tensors) -> list[str]:
    """Inputs that none of these tensors has."""
    return [name for name, arrays in tensors.items() if not any(tensor in arrays for tensor in members)]


def with_zeros(function: Function, names: Sequence[str], absent: Sequence[str], is_valid: bool = False) -> Function:
    """The function of the other inputs. Absent inputs are zeros, and outputs with their names are dropped.

    If `is_valid`, every place holds a coordinate.
    """

    def call(inputs: Rows) -> Rows:
        (rows,) = {value.shape[0] for value in inputs.values()}
        constants: Rows = {name: jnp.zeros(rows_shape(name, rows), jnp.float32) for name in names if name in absent}
        if is_valid and "valid" in names:
            constants["valid"] = jnp.ones((rows, CHUNK_LENGTH), bool)
        return {name: value for name, value in function({**inputs, **constants}).items() if name not in absent}

    return call


def in_halves(function: Function) -> Function:
    """The function in a loop over two halves of its rows.

    The outputs of a loop exist before they are used. Otherwise a compiler computes the function again in each of the
    copies that take its outputs to their tensors.
    """

    def halved(inputs: Rows) -> Rows:
        (rows,) = {value.shape[0] for value in inputs.values()}
        half = -(-rows // 2)

        def split(value: jax.Array) -> jax.Array:
            padding = [(0, 2 * half - rows, 0), *((0, 0, 0) for _ in value.shape[1:])]
            return lax.pad(value, value.dtype.type(0), padding).reshape(2, half, *value.shape[1:])

        outputs = lax.map(function, jax.tree.map(split, inputs))
        return {name: value.reshape(2 * half, *value.shape[2:])[:rows] for name, value in outputs.items()}

    return halved
