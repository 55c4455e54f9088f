"""What the generated `_phases.py` beside `_optimizer.py` defines.

There is a function for each phase that the cell needs. `INPUTS` lists them.
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
"""Shape of each array of `recall`'s state of one tensor."""
INPUTS: dict[str, tuple[str, ...]]
"""For each function the names of its inputs."""
ANY_SHAPE: bool
"""Whether `update` is arithmetic on each coordinate, so that it takes arrays in the shape of their tensor."""
