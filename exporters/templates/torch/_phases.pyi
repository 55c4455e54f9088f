"""What the generated `_phases.py` beside `_optimizer.py` defines.

Beside these functions there may be `encode`, `recall` and `probe`, and a `prepare_…` for what each phase computes once
a tensor: those that are needed, which are those that `INPUTS` lists.
"""

from collections.abc import Mapping

from torch import Tensor

NAME: str
VERSION: str
DIGEST: str
CHUNK_LENGTH: int
SAMPLE_CHUNKS: int
MEMORY: dict[str, tuple[int, ...]]
STATE: dict[str, tuple[int, ...]]
INPUTS: dict[str, tuple[str, ...]]
POINTWISE: bool
"""Whether one loop over coordinates computes all of `fused_update`, with no array between."""

def measure(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def fused_measure(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def encode(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def recall(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def probe(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def update(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def fused_update(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
