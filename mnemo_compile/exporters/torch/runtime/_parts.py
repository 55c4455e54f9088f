"""What a part of a sharded tensor is to its update: where it may be cut, and which matrices it holds."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from ._layout import TILED, Tiling, tiling
from ._phases import INPUTS, MEMORY, TILE
from ._plan import PLAN
from ._roles import Axes, describe, Description

Shape = tuple[int, ...]

HAS_SAMPLES = any(phase.rows == "sample" for phase in PLAN if phase.name in INPUTS)
"""Whether the cell reads a sample of a tensor's chunks."""


class Facts(NamedTuple):
    """What a step must know of a tensor."""

    shape: Shape
    """Of the whole tensor, never of a shard."""
    name: str
    role: str | None
    """The role that the user has chosen."""
    group: int
    """The number of the parameter group."""


class Kind(NamedTuple):
    """What tensors have in common that share packs."""

    is_tiled: bool
    slots: tuple[str, ...]
    """Memory slots, by the names of a phase's inputs."""


def describe_facts(facts: Facts) -> Description:
    """The role of a tensor and the axes of its matrices."""
    return describe(facts.shape, name=facts.name, label=facts.role)


def kind_of(description: Description) -> Kind:
    """The kind of a tensor of this description."""
    slots = tuple(f"memory.{slot.name}" for slot in MEMORY if slot.applies_to(description.role))
    return Kind(TILE > 0 and description.role in TILED and description.axes is not None, slots)


class Matrices(NamedTuple):
    """The matrices that a process holds of a tiled tensor."""

    axes: Axes
    tiling: Tiling


def matrices_of(facts: Facts, here: Shape) -> Matrices:
    """The matrices of a part of a tiled tensor, cut into tiles as the whole is."""
    axes = describe_facts(facts).axes
    assert axes is not None
    tile = tiling(axes.sizes, TILE).tile
    sizes = list(axes.sizes)
    if here != facts.shape:
        for axis, place, _ in _axes_of(axes):
            sizes[place] = sizes[place] * here[axis] // facts.shape[axis]
        axes = Axes(here, axes.order, (sizes[0], sizes[1], sizes[2]))
    return Matrices(axes, Tiling(axes.sizes, tile))


def units(facts: Facts) -> Shape:
    """For each axis, of how many indices a part must consist so that its update is that of the whole.

    The last part may be smaller. A tile is never cut. Where chunks share a memory or are sampled, the unit is the whole
    tensor.
    """
    description = describe_facts(facts)
    slots = [slot for slot in MEMORY if slot.applies_to(description.role)]
    if HAS_SAMPLES or any(slot.per == "chunk" for slot in slots):
        return facts.shape
    axes = description.axes
    if axes is None or not kind_of(description).is_tiled:
        return (1,) * len(facts.shape)
    if axes.split != facts.shape:
        return facts.shape
    steps = list(facts.shape)
    _, rows, columns = axes.sizes
    height, width = tiling(axes.sizes, TILE).tile
    for axis, place, stride in _axes_of(axes):
        one, span = ((rows * columns, 0), (columns, rows * columns), (1, columns))[place]
        if place == 0 or stride * facts.shape[axis] == span:
            step = math.lcm(one * (1, height, width)[place], stride) // stride
            steps[axis] = min(step, facts.shape[axis])
    return tuple(steps)


def _axes_of(axes: Axes) -> Iterator[tuple[int, int, int]]:
    """Each axis of a tensor, whether it counts matrices (0), rows (1) or columns (2), and its stride among them."""
    _, rows, columns = axes.sizes
    stride = 1
    for axis in reversed(axes.order):
        end = stride * axes.split[axis]
        yield axis, 2 if end <= columns else 1 if end <= rows * columns else 0, stride
        stride = end
