"""Descriptions of parameters, and the memory that each of them has."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._checks import labels_like
from ._layout import chunk_count, chunk_run, MemorySlot
from ._phases import CHUNK_LENGTH
from ._roles import describe, Description

Shape = tuple[int, ...]
Roles = Callable[[str, jax.Array], str | None] | Any
"""A function of a parameter's path and array, or a tree like the parameters'. It gives a role, or None."""


def descriptions_of(params: Any, roles: Roles | None) -> list[Description]:
    """Each parameter's description, in the order of the tree. A role that does not fit raises `ValueError`."""
    each = zip(jax.tree.leaves(params), names_of(params), _labels(params, roles), strict=True)
    return [describe(jnp.shape(leaf), name=name, label=label) for leaf, name, label in each]


def names_of(params: Any) -> list[str]:
    """The paths of the parameters, such as `decoder.kernel`."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]


def _labels(params: Any, roles: Roles | None) -> list[str | None]:
    leaves = jax.tree.leaves(params)
    if roles is None:
        return [None for _ in leaves]
    if _is_function(roles):
        return [roles(name, leaf) for name, leaf in zip(names_of(params), leaves, strict=True)]
    return labels_like(params, roles)


def _is_function(roles: Roles) -> bool:
    """Whether roles are a function. A tree of labels may be an object that can be called, such as a module."""
    leaves = jax.tree.leaves(roles)
    return callable(roles) and not (leaves and all(isinstance(leaf, str) for leaf in leaves))


def run_axis(shape: Shape) -> int:
    """The first of the axes whose coordinates share chunks."""
    run = chunk_run(shape, CHUNK_LENGTH)
    return next(axis for axis in reversed(range(len(shape) + 1)) if math.prod(shape[axis:]) == run)


def slot_shape(slot: MemorySlot, shape: Shape, role: str) -> Shape:
    """Shape of a parameter's array of a slot: `(0,)` where the parameter lacks the slot."""
    return slot.tensor_shape(shape, CHUNK_LENGTH) if slot.applies_to(role) else (0,)


def slot_dtype(slot: MemorySlot) -> Any:
    """Dtype of a slot's arrays."""
    return jnp.dtype(slot.dtype)


def initial(slot: MemorySlot, leaf: Any, role: str) -> jax.Array:
    """A parameter's array of a slot before the first step, on the devices of the parameter."""
    shape = slot_shape(slot, jnp.shape(leaf), role)
    zeros = jnp.zeros_like(leaf, slot_dtype(slot))
    if not slot.applies_to(role) or not zeros.size:
        return jnp.zeros(shape, zeros.dtype)
    if slot.per == "chunk":
        zeros = _one_per_chunk(zeros)
    return jnp.broadcast_to(zeros.reshape((*zeros.shape, *(1 for _ in slot.shape))), shape)


def _one_per_chunk(zeros: jax.Array) -> jax.Array:
    """A zero for each chunk, on the device of the chunk if an array with one axis can be sharded like that."""
    axis, run = run_axis(zeros.shape), chunk_run(zeros.shape, CHUNK_LENGTH)
    if run % CHUNK_LENGTH == 0:
        # The array is thinned before it is flattened, because flattening may gather it.
        return zeros.reshape(*zeros.shape[:axis], -1, CHUNK_LENGTH)[..., 0].reshape(-1)
    starts = zeros.reshape(*zeros.shape[:axis], run)[..., :1]
    return jnp.broadcast_to(starts, (*zeros.shape[:axis], chunk_count((run,), CHUNK_LENGTH))).reshape(-1)
