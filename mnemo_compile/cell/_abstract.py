"""What every learned optimizer's cell provides: row-wise phases over chunks and tensors."""

import abc
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import equinox as eqx
from jaxtyping import Array, Bool, Float

from ..step import Role

Rows = Mapping[str, Float[Array, "..."]]
"""Named arrays whose leading axis counts chunks, or tensors."""


Dtype = Literal["float32", "bfloat16"]
_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}


class MemorySlot(NamedTuple):
    """What each coordinate, or each chunk, keeps from step to step under one name."""

    name: str
    shape: tuple[int, ...] = ()
    """Of what is kept: `()` for a number, `(20,)` for twenty of them."""
    level: Literal["coordinate", "chunk"] = "coordinate"
    """What keeps it."""
    dtype: Dtype = "float32"
    """How it is kept. The step rounds to bfloat16 up or down in turns, such that the mean over steps is exact."""
    roles: tuple[Role, ...] | None = None
    """Roles of the tensors that keep it, or None for all. In the rows of other tensors are zeros."""

    @property
    def size(self) -> int:
        """Numbers that one coordinate or chunk keeps."""
        return math.prod(self.shape)

    def bytes_a_coordinate(self, role: Role, chunk_length: int) -> float:
        """Bytes that a tensor of a role keeps for each coordinate, if it has whole chunks."""
        if self.roles is not None and role not in self.roles:
            return 0.0
        return _BYTES[self.dtype] * self.size / (chunk_length if self.level == "chunk" else 1)


class AbstractCell(eqx.Module):
    """The update rule of one parameter tensor.

    A tensor of n coordinates is vectorised and cut into chunks of `chunk_length` coordinates, the last one padded
    with zeros. Every phase maps rows to rows, a row being a chunk or a tensor, and no row sees another. Whatever
    a tensor must know of itself as a whole is a sum of its chunks' rows, taken by whoever holds them: one
    process, blocks one after the other, or shards on many devices.

    | phase | rows | what it computes |
    |---|---|---|
    | `measure` | every chunk | exact moments of the gradient, to be summed |
    | `encode` | a sample of chunks | spatial attention, as a summary to be summed |
    | `share` | every tensor | what the network's tensors tell each other, to be summed over all of them |
    | `recall` | every tensor | temporal attention: what the tensor's coordinates are told (the context) |
    | `decode` | every chunk | a coordinate's direction and its next memory |
    | `scale` | every tensor | what the direction is multiplied by, given its sampled spread |

    The step is `param - lr * (scale * direction + weight_decay * param)`.
    """

    config: eqx.AbstractVar[Any]
    """The `AbstractCellConfig` that the cell was built from."""
    chunk_length: eqx.AbstractVar[int]
    """Coordinates in a chunk (L)."""
    sample_chunks: eqx.AbstractVar[int]
    """Chunks of a tensor that `encode` and the spread of the direction are taken over, at most."""
    memory_slots: eqx.AbstractVar[tuple[MemorySlot, ...]]
    """What coordinates and chunks keep from step to step; all of it is zero before the first."""

    @abc.abstractmethod
    def initial_state(self) -> dict[str, Float[Array, "..."]]:
        """What `recall` keeps of one tensor before the first step, without the leading axis of tensors."""

    @abc.abstractmethod
    def measure(self, grad: Float[Array, "chunks length"]) -> dict[str, Float[Array, " chunks"]]:
        """The moments of each chunk. A step whose summed moments are not all finite changes nothing."""

    @abc.abstractmethod
    def encode(
        self,
        param: Float[Array, "chunks length"],
        grad: Float[Array, "chunks length"],
        memory: Mapping[str, Float[Array, "chunks ..."]],
        valid: Bool[Array, "chunks length"],
        moments: Rows,
        facts: Rows,
        state: Rows,
    ) -> dict[str, Float[Array, "chunks ..."]]:
        """The additive summary of each chunk; `moments`, `facts` and `state` are those of the chunk's tensor."""

    @abc.abstractmethod
    def share(
        self, summary: Rows, moments: Rows, facts: Rows, clock: Rows, state: Rows
    ) -> dict[str, Float[Array, "tensors ..."]]:
        """Each tensor's terms of the network's sums. A cell whose tensors know nothing of each other has none."""

    @abc.abstractmethod
    def recall(
        self, summary: Rows, network: Rows, moments: Rows, facts: Rows, clock: Rows, state: Rows
    ) -> tuple[dict[str, Float[Array, "tensors ..."]], dict[str, Float[Array, "tensors ..."]]]:
        """The context of each tensor and its next state; `network` holds the sums of `share`, the same in every row.

        `facts` holds `coordinates` (n), `matrix` (1 for two axes and more, else 0), `aspect` (longest axis over the
        rest) and `role` (the place in [`ROLES`][]); `clock` holds `step` (steps taken before this one) and `total`
        (the horizon, 0 if unknown).
        """

    @abc.abstractmethod
    def decode(
        self,
        param: Float[Array, "chunks length"],
        grad: Float[Array, "chunks length"],
        memory: Mapping[str, Float[Array, "chunks ..."]],
        valid: Bool[Array, "chunks length"],
        context: Rows,
    ) -> tuple[Float[Array, "chunks length"], dict[str, Float[Array, "chunks ..."]]]:
        """Each coordinate's direction, and the next memory; `context` is that of the chunk's tensor.

        Where `valid` is false there is no coordinate: `param`, `grad` and what a coordinate keeps are zero there.
        """

    @abc.abstractmethod
    def scale(self, context: Rows, spread: Rows) -> Float[Array, " tensors"]:
        """The factor of the direction; `spread` holds `square` and `count`, summed over the sampled coordinates."""
