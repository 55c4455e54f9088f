"""Roles of parameters, and the memory that each of them has."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._layout import chunk_count, MemorySlot, ROLES, shape_numbers, shape_role
from ._phases import CHUNK_LENGTH

Shape = tuple[int, ...]
Chooser = Callable[[str, jax.Array], str | None]
"""Maps a parameter's path and array to its role, or to None for the role that follows from the shape."""


def roles_of(params: Any, choose: Chooser | None) -> list[str]:
    """The role of each parameter, in the order of the tree. An unknown role raises `ValueError`."""
    roles = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        role = choose(name, leaf) if choose is not None else None
        if role is not None and role not in ROLES:
            raise ValueError(
                f"roles gave {role!r} for the parameter {name or '(the only one)'}, which is no role; return one of "
                f"{', '.join(ROLES)}, or None for that of the shape"
            )
        roles.append(shape_role(jnp.shape(leaf)) if role is None else role)
    return roles


def shape_rows(shapes: Sequence[Shape], roles: Sequence[str]) -> dict[str, np.ndarray]:
    """Numbers of the shapes, by the names of a phase's inputs, a row per tensor."""
    numbers = [shape_numbers(shape, role) for shape, role in zip(shapes, roles, strict=True)]
    return {f"shape.{name}": np.array([each[name] for each in numbers], np.float32) for name in shape_numbers(())}


def chunks_of(shape: Shape) -> int:
    """Chunks of a tensor, the last one padded."""
    return chunk_count(math.prod(shape), CHUNK_LENGTH)


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


def whole_axis(shape: Shape) -> int | None:
    """The last axis such that it and the later axes hold whole chunks, or None if the tensor's end is padded."""
    return next((axis for axis in reversed(range(len(shape))) if math.prod(shape[axis:]) % CHUNK_LENGTH == 0), None)


def _one_per_chunk(zeros: jax.Array) -> jax.Array:
    """A zero for each chunk, on the device of the chunk if an array with one axis can be sharded like that."""
    axis = whole_axis(zeros.shape)
    if axis is None:
        return jnp.broadcast_to(zeros[(0,) * zeros.ndim], (chunks_of(zeros.shape),))
    # The array is thinned before it is flattened, because flattening may gather it.
    return zeros.reshape(*zeros.shape[:axis], -1, CHUNK_LENGTH)[..., 0].reshape(-1)
