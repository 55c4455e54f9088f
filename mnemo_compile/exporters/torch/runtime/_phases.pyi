"""What the generated `_phases.py` beside `_optimizer.py` defines.

Beside these functions there may be `encode`, `share`, `recall` and `probe`, and a `prepare_…` for what each phase
computes once a tensor: those that are needed, which are those that `INPUTS` lists.
"""

from collections.abc import Mapping

from torch import Tensor

NAME: str
VERSION: str
DIGEST: str
CHUNK_LENGTH: int
SAMPLE_CHUNKS: int
MEMORY: dict[str, tuple[int, ...]]
"""The slots, and the shape of what is kept in each."""
OF_CHUNKS: tuple[str, ...]
"""Slots that a chunk keeps and not a coordinate."""
IN_BFLOAT16: tuple[str, ...]
"""Slots that are kept in bfloat16; a step gives numbers that it has."""
KEPT_BY: dict[str, tuple[str, ...]]
"""Slots that tensors of some roles keep; the rows of others are zero, and what a step gives for them is dropped."""
ROLES: tuple[str, ...]
"""What a tensor may be to its network; a step is told the place in this."""
STATE: dict[str, tuple[int, ...]]
INPUTS: dict[str, tuple[str, ...]]
POINTWISE: bool
"""Whether one loop over coordinates computes all of `fused_update`, with no array between."""

def measure(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def fused_measure(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def encode(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def share(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def recall(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def probe(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def update(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def fused_update(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
