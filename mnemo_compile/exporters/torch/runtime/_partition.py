"""How the tensors of a step are cut into packs, blocks and tiles."""

import itertools
import math
from collections.abc import Sequence

import torch

from ._layout import shape_numbers
from ._parts import describe_facts, Facts, HAS_SAMPLES, kind_of, matrices_of, Shape
from ._phases import CHUNK_LENGTH
from ._rows import Block, blocks, Pack, packs
from ._tiles import OfTensor, tile_blocks

Part = Pack | Block


class Partition:
    """Cuts tensors into packs and blocks of chunks, into blocks of tiles, and into packs of sampled chunks.

    It keeps less than a byte per parameter.

    **Arguments:**

    - `facts`: of each tensor. None is empty.
    - `here`: the shape of the part of each tensor that this process updates.
    - `block_size`: the largest number of coordinates in a block or pack.
    - `packed`: the largest number of coordinates of a tensor that shares a pack, at most `block_size`.
    - `whole`: whether a larger tensor is one block, up to its last whole chunk.
    - `device`: the device of the arithmetic.
    - `dtype`: the dtype of the arithmetic.
    - `tiled`: the largest number of coordinates in a block of tiles, by default `block_size`.
    """

    def __init__(
        self,
        facts: Sequence[Facts],
        here: Sequence[Shape],
        block_size: int,
        packed: int,
        whole: bool,
        device: torch.device,
        dtype: torch.dtype,
        tiled: int | None = None,
    ):
        descriptions = [describe_facts(each) for each in facts]
        self.length = length = max(block_size // CHUNK_LENGTH, 1) * CHUNK_LENGTH
        """The largest number of coordinates in a block or pack."""
        packed = min(packed, length)
        self.kinds = kinds = [kind_of(description) for description in descriptions]
        """What the tensors have in common, in the order of `facts`."""
        # Small tensors of a kind first, so that packs hold consecutive ones.
        self.order = sorted(range(len(facts)), key=lambda place: (*kinds[place], math.prod(here[place]) > packed))
        """The tensors by their position among `facts`; the position in this list is a tensor's row."""
        self.places = torch.tensor(self.order, device=device)
        """The same on the device."""
        self.parts: list[Part] = []
        """All chunks, tensor by tensor."""
        self.untiled: list[Part] = []
        """The chunks of tensors without tiles."""
        self.samples: list[Pack] = []
        """The sampled chunks."""
        first = 0
        for kind, places in itertools.groupby(self.order, kinds.__getitem__):
            own = [here[place] for place in places]
            small = sum(math.prod(shape) <= packed for shape in own)
            parts: list[Part] = [*packs(first, kind.slots, own[:small], length, False, device)]
            for row, shape in enumerate(own[small:], first + small):
                parts.extend(blocks(row, kind.slots, shape, length, whole))
            self.parts.extend(parts)
            self.untiled.extend([] if kind.is_tiled else parts)
            if HAS_SAMPLES:
                self.samples.extend(packs(first, kind.slots, own, length, True, device))
            first += len(own)
        groups: dict[Shape, list[OfTensor]] = {}
        for row, place in enumerate(self.order):
            if kinds[place].is_tiled and math.prod(here[place]):
                axes, tiles = matrices_of(facts[place], here[place])
                groups.setdefault(tiles.shape, []).append(OfTensor(row, axes, tiles))
        limit = tiled or block_size
        self.tiles = [block for group in groups.values() for block in tile_blocks(group, limit, device, dtype)]
        """Blocks of tiles."""
        self.groups = torch.tensor([facts[place].group for place in self.order], device=device)
        numbers = [shape_numbers(facts[place].shape, CHUNK_LENGTH, descriptions[place]) for place in self.order]
        self.shape = {
            f"shape.{name}": torch.tensor([each[name] for each in numbers], dtype=dtype, device=device)
            for name in numbers[0]
        }
        """Numbers of the shapes of whole tensors, a row per tensor."""
