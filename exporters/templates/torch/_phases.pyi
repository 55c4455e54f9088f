"""What the generated `_phases.py` beside `_optimizer.py` defines."""

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

def measure(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def encode(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def recall(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def probe(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
def update(weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
