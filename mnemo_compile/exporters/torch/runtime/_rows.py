"""How tensors become rows of chunks: small tensors share a pack, large ones are cut into blocks."""

import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ._layout import chunk_count, MemorySlot, sampled_chunks, shape_numbers
from ._phases import CHUNK_LENGTH, MEMORY, SAMPLE_CHUNKS

Shape = tuple[int, ...]

NUMBER = MemorySlot("number")
"""Parameters and gradients as a slot: a number per coordinate."""
SLOTS = {f"memory.{slot.name}": slot for slot in MEMORY}
"""Memory slots by the names of a phase's inputs."""


def row_shape(slot: MemorySlot) -> Shape:
    """Shape of a slot in the row of a chunk."""
    return slot.row_shape(CHUNK_LENGTH)


def chunks_of(coordinates: int) -> int:
    """Chunks that hold this many coordinates, the last one padded."""
    return chunk_count(coordinates, CHUNK_LENGTH)


class Block:
    """Consecutive chunks of one large tensor."""

    def __init__(self, tensor: int, start: int, stop: int):
        self.tensor = tensor
        self.start = start
        """The first coordinate."""
        self.stop = stop
        self.chunks = chunks_of(stop - start)
        self.missing = self.chunks * CHUNK_LENGTH - (stop - start)
        """Places of the last chunk without a coordinate."""

    def valid(self, device: torch.device) -> Tensor:
        """The places of the rows that hold a coordinate."""
        if not self.missing:
            return torch.ones((), dtype=torch.bool, device=device).expand(self.chunks, CHUNK_LENGTH)
        places = torch.arange(self.chunks * CHUNK_LENGTH, device=device)
        return (places < self.stop - self.start).view(-1, CHUNK_LENGTH)

    def gather(self, tensors: list[Tensor], dtype: torch.dtype, slot: MemorySlot) -> Tensor:
        """The rows of a slot. They are a view if the tensor is contiguous and has this dtype."""
        values = self._read(tensors[self.tensor], slot).to(dtype)
        if self.missing and slot.per == "coordinate":
            values = torch.nn.functional.pad(values, (0, self.missing * math.prod(slot.shape)))
        return values.view(-1, *row_shape(slot))

    def _range(self, slot: MemorySlot) -> slice:
        """The range of the block in the flattened array of the slot."""
        size = math.prod(row_shape(slot))
        start = self.start // CHUNK_LENGTH * size
        missing = 0 if slot.per == "chunk" else self.missing * math.prod(slot.shape)
        return slice(start, start + self.chunks * size - missing)

    def _read(self, tensor: Tensor, slot: MemorySlot) -> Tensor:
        """The block's numbers in row-major order, without a copy of the whole tensor."""
        if tensor.is_contiguous():
            return tensor.view(-1)[self._range(slot)]
        return torch.take(tensor, torch.arange(self.start, self.stop, device=tensor.device))

    def view(self, tensors: list[Tensor], slot: MemorySlot) -> Tensor | None:
        """The rows as a view of the tensor, or None if a view is impossible."""
        tensor = tensors[self.tensor]
        if not tensor.is_contiguous() or self.missing:
            return None
        return tensor.view(-1)[self._range(slot)].view(-1, *row_shape(slot))

    def scatter(self, rows: Tensor, tensors: list[Tensor], slot: MemorySlot) -> None:
        """Writes rows back."""
        tensor, places = tensors[self.tensor], self._range(slot)
        values = rows.reshape(-1)[: places.stop - places.start]
        if tensor.is_contiguous():
            tensor.view(-1)[places].copy_(values)
        else:
            places = torch.arange(self.start, self.stop, device=tensor.device)
            tensor.put_(places, values.to(tensor.dtype))

    def of_chunks(self, rows: Tensor) -> Tensor:
        """The row of the tensor, which broadcasts over its chunks."""
        return rows[self.tensor : self.tensor + 1]

    def total(self, rows: Tensor) -> Tensor:
        """The sum of the rows of chunks, per tensor."""
        return rows.sum(0, keepdim=True)


class Pack:
    """Chunks of several consecutive tensors, all of each or a sample of it, padded to whole chunks."""

    def __init__(self, first: int, sizes: list[int], sampled: bool, device: torch.device):
        self.first = first
        self.sizes = sizes
        self.picks: list[Tensor | None] = []
        """The sampled chunks of each tensor, or None for all chunks."""
        masks, lengths, sources, targets = [], [], [], []
        coordinates, places = 0, 0
        for size in sizes:
            chunks = chunks_of(size)
            if sampled and chunks > SAMPLE_CHUNKS:
                self.picks.append(torch.tensor(sampled_chunks(chunks, SAMPLE_CHUNKS), device=device))
                chunks, size = SAMPLE_CHUNKS, SAMPLE_CHUNKS * CHUNK_LENGTH
            else:
                self.picks.append(None)
            place = torch.arange(chunks * CHUNK_LENGTH)
            lengths.append(chunks)
            masks.append(place < size)
            sources.append(torch.where(place < size, place + (coordinates + 1), 0))
            targets.append(torch.arange(size) + places)
            coordinates, places = coordinates + size, places + chunks * CHUNK_LENGTH
        self.mask = torch.cat(masks).view(-1, CHUNK_LENGTH).to(device)
        self.chunks = sum(lengths)
        self.counts = lengths
        """Chunks of each tensor."""
        self.lengths = torch.tensor(lengths, device=device)
        self.owner = torch.cat([torch.full((count,), place) for place, count in enumerate(lengths, first)]).to(device)
        self.padding: tuple[Tensor, Tensor] | None = None
        """If there is padding: the coordinate in each place, counted from 1, or 0; and the place of each coordinate."""
        if coordinates < places:
            self.padding = (torch.cat(sources).to(device), torch.cat(targets).to(device))

    def valid(self, device: torch.device) -> Tensor:
        """The places of the rows that hold a coordinate."""
        return self.mask

    def gather(self, tensors: list[Tensor], dtype: torch.dtype, slot: MemorySlot) -> Tensor:
        """The rows of a slot."""
        width = math.prod(slot.shape)
        pieces = []
        for place, (size, picks) in enumerate(zip(self.sizes, self.picks, strict=True), self.first):
            tensor = tensors[place]
            if slot.per == "chunk":
                rows = tensor.view(-1, width)
                pieces.append(rows if picks is None else rows.index_select(0, picks))
            elif picks is None:
                pieces.append(tensor.reshape(-1, width))
            elif tensor.is_contiguous():
                # The sample of a tensor never holds its last chunk, the one that may be short.
                whole = size // CHUNK_LENGTH
                chunks = tensor.view(-1)[: whole * CHUNK_LENGTH * width].view(whole, -1)
                pieces.append(chunks.index_select(0, picks).view(-1, width))
            else:
                places = picks[:, None] * CHUNK_LENGTH + torch.arange(CHUNK_LENGTH, device=picks.device)
                pieces.append(torch.take(tensor, places).view(-1, width))
        if self.padding is None or slot.per == "chunk":
            values = torch.cat(pieces)
        else:
            values = torch.cat([pieces[0].new_zeros(1, width), *pieces]).index_select(0, self.padding[0])
        return values.to(dtype).view(-1, *row_shape(slot))

    def scatter(self, rows: Tensor, tensors: list[Tensor], slot: MemorySlot) -> None:
        """Writes rows back. Only packs without a sample do this."""
        targets = tensors[self.first : self.first + len(self.sizes)]
        values = rows.reshape(-1, math.prod(slot.shape))
        if self.padding is not None and slot.per == "coordinate":
            values = values.index_select(0, self.padding[1])
        sizes = self.counts if slot.per == "chunk" else self.sizes
        new = [piece.view(tensor.shape) for piece, tensor in zip(values.split(sizes), targets, strict=True)]
        torch._foreach_copy_(targets, new)  # pyright: ignore[reportPrivateImportUsage]

    def of_chunks(self, rows: Tensor) -> Tensor:
        """For each chunk, the row of its tensor."""
        return rows.index_select(0, self.owner)

    def total(self, rows: Tensor) -> Tensor:
        """The sum of the rows of chunks, per tensor."""
        return torch.segment_reduce(rows, "sum", lengths=self.lengths, axis=0, unsafe=True)


Part = Pack | Block


class Partition:
    """Cuts tensors of these shapes into packs and blocks, once for all chunks and once for the sample.

    **Arguments:**

    - `shapes`: shapes of the tensors, none of them empty.
    - `roles`: their roles.
    - `groups`: the number of each tensor's parameter group.
    - `block_size`: the largest number of coordinates in a block or pack.
    - `whole`: whether a larger tensor is one block, up to its last whole chunk.
    - `device`: the device of the arithmetic.
    - `dtype`: the dtype of the arithmetic.
    """

    def __init__(
        self,
        shapes: tuple[Shape, ...],
        roles: tuple[str, ...],
        groups: tuple[int, ...],
        block_size: int,
        whole: bool,
        device: torch.device,
        dtype: torch.dtype,
    ):
        block_size = max(block_size // CHUNK_LENGTH, 1) * CHUNK_LENGTH
        # Small tensors first, so that packs hold consecutive ones.
        self.order = sorted(range(len(shapes)), key=lambda place: math.prod(shapes[place]) > block_size)
        """The tensors by their position among `shapes`; the position in this list is a tensor's row."""
        sizes = [math.prod(shapes[place]) for place in self.order]
        small = sum(size <= block_size for size in sizes)
        self.parts: list[Part] = list(_packs(0, sizes[:small], block_size, False, device))
        for place in range(small, len(sizes)):
            ends = (
                [sizes[place] // CHUNK_LENGTH * CHUNK_LENGTH] if whole else range(block_size, sizes[place], block_size)
            )
            cuts = [0, *ends, sizes[place]]
            self.parts.extend(Block(place, start, stop) for start, stop in zip(cuts, cuts[1:]) if stop > start)
        self.samples = list(_packs(0, sizes, block_size, True, device))
        self.groups = torch.tensor([groups[place] for place in self.order], device=device)
        numbers = [shape_numbers(shapes[place], roles[place]) for place in self.order]
        self.shape = {
            f"shape.{name}": torch.tensor([each[name] for each in numbers], dtype=dtype, device=device)
            for name in numbers[0]
        }
        """Numbers of the shapes, a row per tensor."""


_cached = functools.lru_cache(maxsize=64)(Partition)


def partition(
    shapes: tuple[Shape, ...],
    roles: tuple[str, ...],
    groups: tuple[int, ...],
    block_size: int,
    whole: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> Partition:
    """The partition of tensors of these shapes, from a cache if it was made before."""
    make = Partition if torch.compiler.is_compiling() else _cached
    return make(shapes, roles, groups, block_size, whole, device, dtype)


def _packs(first: int, sizes: list[int], block_size: int, sampled: bool, device: torch.device) -> Iterator[Pack]:
    """Packs of consecutive tensors. A pack has at most `block_size` coordinates or a single tensor."""
    start, coordinates = 0, 0
    for place, size in enumerate(sizes):
        chunks = min(chunks_of(size), SAMPLE_CHUNKS) if sampled else chunks_of(size)
        if place > start and coordinates + chunks * CHUNK_LENGTH > block_size:
            yield Pack(first + start, sizes[start:place], sampled, device)
            start, coordinates = place, 0
        coordinates += chunks * CHUNK_LENGTH
    if sizes:
        yield Pack(first + start, sizes[start:], sampled, device)
