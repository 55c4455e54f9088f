"""Divides an array into blocks."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from ._tensors import Shape


class Blocks(NamedTuple):
    """Blocks along an axis: `steps` times `width` entries, from `start` on."""

    start: int
    width: int
    steps: int


def regions(sizes: Shape, units: Shape, most: int) -> list[tuple[Blocks, ...]]:
    """Regions that cover an array. Each consists of blocks of equal sizes, given by axis.

    **Arguments:**

    - `sizes`: the array's.
    - `units`: for each axis how many consecutive entries belong into one block.
    - `most`: entries of a block at most, unless the units ask for more.
    """
    widths = [min(unit, size) for unit, size in zip(units, sizes, strict=True)]
    along: list[Sequence[Blocks]] = []
    for axis in reversed(range(len(sizes))):
        others = math.prod(widths) // max(widths[axis], 1)
        along.append(_along(sizes[axis], units[axis], most // max(others, 1)))
        widths[axis] = along[-1][0].width
    return list(itertools.product(*reversed(along)))


def _along(size: int, unit: int, most: int) -> list[Blocks]:
    """Blocks along one axis, and the rest. A width of at least half the greatest is preferred if it leaves no rest."""
    if size <= max(most, unit):
        return [Blocks(0, size, 1)]
    places, greatest = size // unit, max(most // unit, 1)
    exact = (width for width in range(greatest, greatest // 2, -1) if places % width == 0)
    width = next(exact, places // -(-places // greatest))
    main = Blocks(0, width * unit, places // width)
    covered = main.width * main.steps
    return [main] if covered == size else [main, Blocks(covered, size - covered, 1)]
