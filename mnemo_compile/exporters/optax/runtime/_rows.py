"""Shared by packs, samples and sweeps: rows of inputs, and functions over rows."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ._layout import MemorySlot
from ._phases import MEMORY

Rows = dict[str, jax.Array]
"""Named arrays with a row per tensor, chunk or tile."""
Function = Callable[[Rows], Rows]
"""A phase of the cell, or a function derived from some."""
Tensors = dict[str, dict[int, jax.Array]]
"""For each input over parts, such as `grad`, the arrays of the tensors that have it, by the tensor's number.

An array has the tensor's axes and then those of an entry. A slot per chunk has one axis of chunks in their place.
"""

SLOTS = {"param": MemorySlot("param"), "grad": MemorySlot("grad"), **{f"memory.{slot.name}": slot for slot in MEMORY}}
"""The slots of coordinates and chunks, by the names of the inputs over parts."""


def is_per_chunk(name: str) -> bool:
    """Whether an input has an entry per chunk and not per coordinate."""
    return SLOTS[name].per == "chunk"


def for_arithmetic(name: str, array: jax.Array) -> jax.Array:
    """An input in float32. Parameters of float64 stay, so that an update is no difference of rounded numbers."""
    return array if name == "param" and array.dtype == jnp.float64 else array.astype(jnp.float32)


def chained(functions: Sequence[Function]) -> Function:
    """The functions one after the other. Each also receives the outputs of those before it."""

    def call(inputs: Rows) -> Rows:
        outputs: Rows = {}
        for function in functions:
            outputs.update(function({**inputs, **outputs}))
        return outputs

    return call


def composed(functions: Sequence[Function]) -> Function:
    """The last of the functions, which also receives the outputs of those before it."""
    *before, last = functions
    return lambda inputs: last({**inputs, **chained(before)(inputs)})


def missing(members: Sequence[int], tensors: Tensors) -> list[str]:
    """Inputs that none of these tensors has."""
    return [name for name, arrays in tensors.items() if not any(tensor in arrays for tensor in members)]


def with_zeros(function: Function, absent: Mapping[str, tuple[int, ...]]) -> Function:
    """The function of the other inputs. Absent inputs are zeros with rows of these shapes, and have no outputs."""

    def call(inputs: Rows) -> Rows:
        (rows,) = {value.shape[0] for value in inputs.values()}
        zeros = {name: jnp.zeros((rows, *shape), jnp.float32) for name, shape in absent.items()}
        return {name: value for name, value in function({**inputs, **zeros}).items() if name not in absent}

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
