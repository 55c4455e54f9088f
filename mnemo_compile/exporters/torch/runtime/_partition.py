"""How the tensors of a step are cut into packs, blocks and tiles."""

import functools
import itertools
import math
from typing import NamedTuple

import torch

from ._layout import Layout, shape_numbers, TILED
from ._phases import CHUNK_LENGTH, MEMORY, SAMPLE_CHUNKS, TILE
from ._roles import describe, Description
from ._rows import Block, blocks, Pack, packs, Shape
from ._tiles import Matrices, tile_blocks

Part = Pack | Block


class Facts(NamedTuple):
    """What a step must know of a tensor."""

    shape: Shape
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


def kind_of(description: Description) -> Kind:
    """The kind of a tensor of this description."""
    slots = tuple(f"memory.{slot.name}" for slot in MEMORY if slot.applies_to(description.role))
    return Kind(TILE > 0 and description.role in TILED and description.axes is not None, slots)


class Partition:
    """Cuts tensors into packs and blocks of chunks, into blocks of tiles, and into packs of sampled chunks.

    **Arguments:**

    - `facts`: of each tensor. None is empty.
    - `block_size`: the largest number of coordinates in a block or pack.
    - `whole`: whether a larger tensor is one block, up to its last whole chunk.
    - `device`: the device of the arithmetic.
    - `dtype`: the dtype of the arithmetic.
    """

    def __init__(
        self,
        facts: tuple[Facts, ...],
        block_size: int,
        whole: bool,
        device: torch.device,
        dtype: torch.dtype,
    ):
        shapes = [each.shape for each in facts]
        descriptions = [describe(shape, name=name, label=role) for shape, name, role, _ in facts]
        length = max(block_size // CHUNK_LENGTH, 1) * CHUNK_LENGTH
        kinds = [kind_of(description) for description in descriptions]
        # Small tensors of a kind first, so that packs hold consecutive ones.
        self.order = sorted(range(len(shapes)), key=lambda place: (*kinds[place], math.prod(shapes[place]) > length))
        """The tensors by their position among `shapes`; the position in this list is a tensor's row."""
        self.parts: list[Part] = []
        """All chunks, tensor by tensor."""
        self.untiled: list[Part] = []
        """The chunks of tensors without tiles."""
        self.samples: list[Pack] = []
        """The sampled chunks."""
        first = 0
        for kind, places in itertools.groupby(self.order, kinds.__getitem__):
            own = [shapes[place] for place in places]
            small = sum(math.prod(shape) <= length for shape in own)
            parts: list[Part] = [*packs(first, kind.slots, own[:small], length, False, device)]
            for row, shape in enumerate(own[small:], first + small):
                parts.extend(blocks(row, kind.slots, shape, length, whole))
            self.parts.extend(parts)
            self.untiled.extend([] if kind.is_tiled else parts)
            self.samples.extend(packs(first, kind.slots, own, length, True, device))
            first += len(own)
        described = tuple(descriptions[place] for place in self.order)
        ordered = tuple(shapes[place] for place in self.order)
        layout = Layout(ordered, CHUNK_LENGTH, SAMPLE_CHUNKS, TILE, described)
        self.tiles = [
            block
            for rows in layout.tile_groups.values()
            for block in tile_blocks([Matrices(row, *layout.matrices[row]) for row in rows], block_size, device, dtype)
        ]
        """Blocks of tiles."""
        self.groups = torch.tensor([facts[place].group for place in self.order], device=device)
        numbers = [shape_numbers(shapes[place], CHUNK_LENGTH, descriptions[place]) for place in self.order]
        self.shape = {
            f"shape.{name}": torch.tensor([each[name] for each in numbers], dtype=dtype, device=device)
            for name in numbers[0]
        }
        """Numbers of the shapes, a row per tensor."""


_cached = functools.lru_cache(maxsize=64)(Partition)


def partition(
    facts: tuple[Facts, ...], block_size: int, whole: bool, device: torch.device, dtype: torch.dtype
) -> Partition:
    """The partition of tensors, from a cache if it was made before."""
    return _cached(facts, block_size, whole, device, dtype)
