"""The types of the generated `_kernels.py`, which holds the kernels that `KERNELS` of `_phases.py` names."""

from typing import Any

ROWS: dict[str, tuple[int, ...]]
"""For each number of a tensor the first of its rows, and its shape."""
OPTIONS: dict[str, tuple[int, ...]]
"""The same for numbers of parameter groups."""
LANES: dict[str, tuple[tuple[float, ...], ...]]
"""For each phase the numbers that differ along the lanes of a chunk."""
SUMS: dict[str, tuple[str, ...]]
"""For each phase that is summed over chunks its outputs, in order."""

tiles: Any
