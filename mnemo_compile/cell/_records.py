"""The records that a cell's methods take: rows of chunks, and rows of tensors."""

import functools
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..step import Role, ROLES

Rows = Mapping[str, Float[Array, "..."]]
"""Named arrays whose leading axis counts chunks, or tensors."""


def has_role(role: Float[Array, " rows"], roles: Sequence[Role]) -> Bool[Array, " rows"]:
    """Whether each row's role, which is a place in `ROLES`, is one of these."""
    matches = [role == ROLES.index(each) for each in roles]
    return functools.reduce(jnp.logical_or, matches or [jnp.zeros(role.shape, bool)])


class Chunks(eqx.Module):
    """Rows of chunks. A tensor of n coordinates is cut into chunks of equal length, the last one padded."""

    param: Float[Array, "chunks length"]
    """Parameters, zero in padding."""
    grad: Float[Array, "chunks length"]
    """Gradients, zero in padding."""
    memory: Mapping[str, Float[Array, "chunks ..."]]
    """The memory by slot. A slot per coordinate is zero in padding; a slot per chunk has one entry in each row."""
    valid: Bool[Array, "chunks length"]
    """Whether a place holds a coordinate and not padding."""


class Tiles(eqx.Module):
    """Rows of tiles. A tile is a part of a matrix, turned so that it has at least as many columns as rows."""

    grad: Float[Array, "tiles height width"]
    """Gradients, zero in padding."""
    memory: Mapping[str, Float[Array, "tiles height width"]]
    """The memory of the coordinates by slot, zero in padding."""


class Composition(eqx.Module):
    """What the direction of tiles is made of. The step takes its polar factor."""

    matrix: Float[Array, "tiles height width"]
    """Such as the momentum. Its scale does not matter."""
    memory: Mapping[str, Float[Array, "tiles height width"]]
    """The next memory by slot."""
    scale: Float[Array, " tiles"]
    """The root mean square of the step of a tile of full rank."""


class Tensors(eqx.Module):
    """Rows of tensors. A group is empty in a phase that runs before the group is computed.

    In a phase over chunks there is a row per chunk: that of the chunk's tensor.
    """

    moments: Rows
    """Sums of `measure` over all chunks of the tensor."""
    summary: Rows
    """Sums of `encode` over the sampled chunks of the tensor."""
    network: Rows
    """Sums of `share` over the tensors of the network, the same in every row."""
    shape: Rows
    """The numbers that `mnemo_compile.step.shape_numbers` gives."""
    clock: Rows
    """`step`, the steps taken before this one, and `total`, the horizon, which is 0 if it is unknown."""
    hyper: Rows
    """The user's options: `lr`, `weight_decay`, and `pretrained`, which is 1 or 0 where the user says, else -1."""
    state: Rows
    """The next state that `recall` gave in the step before; in the first step, rows of `initial_state`."""
