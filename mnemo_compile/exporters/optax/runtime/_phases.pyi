"""What the generated `_phases.py` beside `_optimizer.py` defines."""

from collections.abc import Mapping

from jax import Array

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

def measure(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]: ...
def encode(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]: ...
def share(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]: ...
def recall(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]: ...
def probe(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]: ...
def update(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]: ...
