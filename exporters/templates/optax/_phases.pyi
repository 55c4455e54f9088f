"""What the generated `_phases.py` beside `_optimizer.py` defines."""

from collections.abc import Mapping

from jax import Array

NAME: str
VERSION: str
DIGEST: str
CHUNK_LENGTH: int
SAMPLE_CHUNKS: int
MEMORY: dict[str, tuple[int, ...]]
STATE: dict[str, tuple[int, ...]]
INPUTS: dict[str, tuple[str, ...]]

def measure(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]: ...
def encode(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]: ...
def recall(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]: ...
def probe(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]: ...
def update(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]: ...
