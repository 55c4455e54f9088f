"""The records that a cell's methods take: rows of chunks, and rows of tensors."""

from collections.abc import Mapping

import equinox as eqx
from jaxtyping import Array, Bool, Float

Rows = Mapping[str, Float[Array, "..."]]
"""Named arrays whose leading axis counts chunks, or tensors."""


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
    """`coordinates`, `matrix`, `aspect` and `role`, as `mnemo_compile.step.shape_numbers` gives them."""
    clock: Rows
    """`step`, the steps taken before this one, and `total`, the horizon, which is 0 if it is unknown."""
    state: Rows
    """The next state that `recall` gave in the step before; in the first step, rows of `initial_state`."""
