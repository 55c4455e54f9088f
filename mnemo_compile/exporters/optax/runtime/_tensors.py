"""What a tensor is to its network, what the cell is told of it, and what it keeps."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._phases import CHUNK_LENGTH, IN_BFLOAT16, KEPT_BY, MEMORY, OF_CHUNKS, ROLES

Shape = tuple[int, ...]
Chooser = Callable[[str, jax.Array], str | None]
"""From a parameter's path and array to its role, or to None for that of the shape."""

TALL = 16
"""A matrix whose longer axis is this many times the other is taken for an embedding."""


def shape_role(shape: Shape) -> str:
    """The role of a tensor of which nothing is known but its shape. Axes of size 1 do not count."""
    axes = sorted(size for size in shape if size != 1)
    if len(axes) < 2:
        return "vector"
    if len(axes) > 2:
        return "convolution"
    return "embedding" if axes[1] >= TALL * axes[0] else "matrix"


def roles_of(params: Any, choose: Chooser | None) -> list[str]:
    """The role of each parameter, in the order of the tree. One that there is not raises `ValueError`."""
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


def facts(shapes: Sequence[Shape], roles: Sequence[str]) -> dict[str, np.ndarray]:
    """What the cell is told of tensors that have coordinates."""
    aspects = [max(shape) ** 2 / math.prod(shape) if len(shape) >= 2 else 1.0 for shape in shapes]
    return {
        "facts.coordinates": np.array([math.prod(shape) for shape in shapes], np.float32),
        "facts.matrix": np.array([len(shape) >= 2 for shape in shapes], np.float32),
        "facts.aspect": np.array(aspects, np.float32),
        "facts.role": np.array([ROLES.index(role) for role in roles], np.float32),
    }


def is_kept(slot: str, role: str) -> bool:
    """Whether tensors of the role keep the slot."""
    return role in KEPT_BY.get(slot, ROLES)


def kept_shape(slot: str, shape: Shape, role: str) -> Shape:
    """Of what a tensor keeps in a slot: `(0,)` for nothing."""
    if not is_kept(slot, role):
        return (0,)
    places = (chunk_count(shape),) if slot in OF_CHUNKS else shape
    return (*places, *MEMORY[slot])


def kept_dtype(slot: str) -> Any:
    """In which a slot is kept."""
    return jnp.bfloat16 if slot in IN_BFLOAT16 else jnp.float32


def initial(slot: str, leaf: Any, role: str) -> jax.Array:
    """What a tensor keeps in a slot before the first step, made of the tensor so that it lies where that does."""
    shape = kept_shape(slot, jnp.shape(leaf), role)
    zeros = jnp.zeros_like(leaf, kept_dtype(slot))
    if not is_kept(slot, role) or not zeros.size:
        return jnp.zeros(shape, zeros.dtype)
    if slot in OF_CHUNKS:
        zeros = _one_a_chunk(zeros)
    return jnp.broadcast_to(zeros.reshape((*zeros.shape, *(1 for _ in MEMORY[slot]))), shape)


def chunk_count(shape: Shape) -> int:
    """Chunks of a tensor, the last one padded."""
    return -(-math.prod(shape) // CHUNK_LENGTH)


def whole_axis(shape: Shape) -> int | None:
    """The last axis from which on there are whole chunks, or None if the tensor's end is padded."""
    return next((axis for axis in reversed(range(len(shape))) if math.prod(shape[axis:]) % CHUNK_LENGTH == 0), None)


def _one_a_chunk(zeros: jax.Array) -> jax.Array:
    """A zero for each chunk, on the device that holds the chunk if that can be said of an array with one axis."""
    axis = whole_axis(zeros.shape)
    if axis is None:
        return jnp.broadcast_to(zeros[(0,) * zeros.ndim], (chunk_count(zeros.shape),))
    # Thinned before it is made flat, which may gather it.
    return zeros.reshape(*zeros.shape[:axis], -1, CHUNK_LENGTH)[..., 0].reshape(-1)
