"""What every learned optimizer's cell provides: methods that map rows of chunks, tiles and tensors to rows."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..step import MemorySlot, PLAN
from ._records import Chunks, Rows

OPTIONAL = tuple(phase.name for phase in PLAN if phase.optional and phase.rows != "tiles")
"""Names of the phases that a cell may lack; the method of the same name computes the phase."""

DECAY = 1e-3
"""What a weight decay of 1 takes off a parameter per step, by default: AdamW's customary learning rate."""


class AbstractCell(eqx.Module):
    """The update rule of one parameter tensor.

    A tensor of n coordinates is flattened and cut into chunks of `chunk_length` coordinates, the last one padded with
    zeros. Every method maps rows to rows. A row is a chunk or a tensor, and rows do not depend on each other. Whatever
    a tensor must know of itself as a whole is a sum over its chunks. The runtime computes that sum over the whole
    tensor, over blocks one after the other, or over shards on many devices.

    The step is `param - lr * (direction + decay * weight_decay * param)`.

    A cell may also define these methods. A step skips the phases whose methods are missing.

    - `encode(chunks: Chunks, tensors: Tensors) -> dict[str, Float[Array, "chunks ..."]]`: the additive summary of each
      sampled chunk, such as attention's numerator and denominator. `tensors` has no `summary`, `network`, `clock` and
      `hyper`.
    - `share(tensors: Tensors) -> dict[str, Float[Array, "tensors ..."]]`: each tensor's terms of the sums over the
      network. `tensors` has no `network` and `hyper`.
    - `recall(tensors: Tensors) -> tuple[dict[str, Float[Array, "tensors ..."]], dict[...]]`: the context of each tensor
      and its next state, which has the entries of `initial_state`.
    - `compose(tiles: Tiles, context: Rows) -> Composition`: what the direction of a tile is made of. A cell with a
      `tile` has it, and matrices and convolutions then take the polar factors of their tiles in the place of `decode`.
    """

    config: eqx.AbstractVar[Any]
    """The `AbstractCellConfig` that the cell was built from."""
    chunk_length: eqx.AbstractVar[int]
    """Coordinates of a chunk (L)."""
    sample_chunks: eqx.AbstractVar[int]
    """Chunks in a tensor's sample, at most."""
    memory_slots: eqx.AbstractVar[tuple[MemorySlot, ...]]
    """The arrays that coordinates and chunks store between steps. They are zero before the first step."""

    @property
    def tile(self) -> int:
        """The largest side of a tile, or 0 where no tensor has tiles."""
        return 0

    def phases(self) -> frozenset[str]:
        """The optional phases that the cell has: those whose method it defines.

        Override it if this depends on the configuration.
        """
        return frozenset(name for name in OPTIONAL if hasattr(self, name))

    def initial_state(self) -> dict[str, Float[Array, "..."]]:
        """The state of one tensor before the first step, without the axis of tensors."""
        return {}

    @abc.abstractmethod
    def measure(
        self, param: Float[Array, "chunks length"], grad: Float[Array, "chunks length"]
    ) -> dict[str, Float[Array, "chunks ..."]]:
        """The moments of each chunk. A step whose sums are not all finite changes nothing."""

    @abc.abstractmethod
    def decode(
        self, chunks: Chunks, context: Rows
    ) -> tuple[Float[Array, "chunks length"], dict[str, Float[Array, "chunks ..."]]]:
        """Each coordinate's direction, and the next memory; `context` has the row of each chunk's tensor."""

    def decay(self, context: Rows, clock: Rows) -> Float[Array, " rows"]:
        """What a weight decay of 1 takes off a parameter in this step, as a fraction of it."""
        return jnp.full_like(clock["step"], DECAY)
