"""The types of the generated `_phases.py`.

There is a function for each phase that the cell needs, a `prepare_<phase>` where a phase over chunks computes something
once per tensor, and a `fused_<phase>` in the form that a compiler turns into one loop. `INPUTS` lists them.
"""

from ._layout import MemorySlot

NAME: str
VERSION: str
DIGEST: str
CHUNK_LENGTH: int
SAMPLE_CHUNKS: int
TILE: int
"""The largest side of a tile, 0 where no tensor has tiles."""
MEMORY: tuple[MemorySlot, ...]
STATE: dict[str, tuple[int, ...]]
"""Shapes of one tensor's state of `recall`."""
INPUTS: dict[str, tuple[str, ...]]
"""For each function the names of its inputs."""
POINTWISE: bool
"""Whether one loop over coordinates computes a whole fused phase, without intermediate arrays."""
KERNELS: tuple[str, ...]
"""Phases that a Triton kernel of `_kernels.py` computes; `tiles` stands for all phases over tiles."""
