"""How tensors become rows of chunks: small tensors share a pack, large ones are cut into blocks."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ._layout import chunk_count, chunk_run, MemorySlot, sampled_chunks
from ._phases import CHUNK_LENGTH, MEMORY, SAMPLE_CHUNKS

Shape = tuple[int, ...]

NUMBER = MemorySlot("number")
"""Parameters and gradients as a slot: a number per coordinate."""
SLOTS = {f"memory.{slot.name}": slot for slot in MEMORY}
"""Memory slots by the names of a phase's inputs."""


def row_shape(slot: MemorySlot) -> Shape:
    """Shape of a slot in the row of a chunk."""
    return slot.row_shape(CHUNK_LENGTH)


class Block:
    """Consecutive chunks of one large tensor.

    **Arguments:**

    - `tensor`: the tensor's row.
    - `slots`: the memory slots of the tensor, by the names of a phase's inputs.
    - `start`, `stop`: the range of coordinates.
    - `run`: after this many coordinates a new chunk starts. It divides the range.
    - `first`: the first chunk.
    """

    def __init__(self, tensor: int, slots: tuple[str, ...], start: int, stop: int, run: int, first: int):
        self.tensor = tensor
        self.slots = slots
        self.start = start
        self.stop = stop
        self.first = first
        self.runs = (stop - start) // run
        self.missing = -run % CHUNK_LENGTH
        """Places of the last chunk of each run without a coordinate."""
        self.chunks = self.runs * -(-run // CHUNK_LENGTH)

    def valid(self, device: torch.device) -> Tensor:
        """The places of the rows that hold a coordinate."""
        if not self.missing:
            return torch.ones((), dtype=torch.bool, device=device).expand(self.chunks, CHUNK_LENGTH)
        length = self.chunks * CHUNK_LENGTH // self.runs
        present = torch.arange(length, device=device) < length - self.missing
        return present.expand(self.runs, length).reshape(-1, CHUNK_LENGTH)

    def gather(self, tensors: list[Tensor], dtype: torch.dtype, slot: MemorySlot) -> Tensor:
        """The rows of a slot. They are a view if the tensor is contiguous and has this dtype."""
        values = self._read(tensors[self.tensor], slot).to(dtype)
        if self.missing and slot.per == "coordinate":
            values = values.view(self.runs, -1)
            values = torch.nn.functional.pad(values, (0, self.missing * math.prod(slot.shape)))
        return values.view(-1, *row_shape(slot))

    def _range(self, slot: MemorySlot) -> slice:
        """The range of the block in the flattened array of the slot."""
        size = math.prod(slot.shape)
        if slot.per == "chunk":
            return slice(self.first * size, (self.first + self.chunks) * size)
        return slice(self.start * size, self.stop * size)

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
        tensor = tensors[self.tensor]
        values = rows.reshape(-1)
        if self.missing and slot.per == "coordinate":
            values = rows.reshape(self.runs, -1)[:, : -self.missing * math.prod(slot.shape)].reshape(-1)
        if tensor.is_contiguous():
            tensor.view(-1)[self._range(slot)].copy_(values)
        else:
            places = torch.arange(self.start, self.stop, device=tensor.device)
            tensor.put_(places, values.to(tensor.dtype))

    def of_tensors(self, rows: Tensor) -> Tensor:
        """The row of the tensor, which broadcasts over its chunks."""
        return rows[self.tensor : self.tensor + 1]

    def total(self, rows: Tensor) -> Tensor:
        """The sum of the rows of chunks, per tensor."""
        return rows.sum(0, keepdim=True)


class Pack:
    """Chunks of several consecutive tensors, all of each or a sample of it, padded to whole chunks.

    **Arguments:**

    - `first`: the row of the first tensor.
    - `slots`: the memory slots of the tensors, by the names of a phase's inputs.
    - `shapes`: shapes of the tensors.
    - `sampled`: whether only the sampled chunks count.
    - `device`: the device of the arithmetic.
    """

    def __init__(
        self, first: int, slots: tuple[str, ...], shapes: Sequence[Shape], sampled: bool, device: torch.device
    ):
        self.first = first
        self.slots = slots
        self.picks: list[tuple[Tensor, Tensor] | None] = []
        """The sampled chunks of each tensor and their coordinates, or None for all chunks."""
        masks, sources, targets = [], [], []
        self.counts: list[int] = []
        """Chunks of each tensor."""
        self.sizes: list[int] = []
        """Coordinates of each tensor."""
        coordinates, places = 0, 0
        for shape in shapes:
            chunks = torch.arange(chunk_count(shape, CHUNK_LENGTH))
            is_sampled = sampled and len(chunks) > SAMPLE_CHUNKS
            if is_sampled:
                chunks = torch.tensor(sampled_chunks(len(chunks), SAMPLE_CHUNKS))
            located, mask = _coordinates(shape, chunks)
            self.picks.append((chunks.to(device), located[mask].to(device)) if is_sampled else None)
            mask = mask.view(-1)
            self.counts.append(len(chunks))
            self.sizes.append(int(mask.sum()))
            masks.append(mask)
            sources.append(torch.where(mask, mask.cumsum(0) + coordinates, 0))
            targets.append(mask.nonzero().view(-1) + places)
            coordinates, places = coordinates + self.sizes[-1], places + len(mask)
        self.mask = torch.cat(masks).view(-1, CHUNK_LENGTH).to(device)
        self.chunks = sum(self.counts)
        self.lengths = torch.tensor(self.counts, device=device)
        self.owner = torch.cat([torch.full((count,), place) for place, count in enumerate(self.counts, first)])
        self.owner = self.owner.to(device)
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
        for tensor, picks in zip(tensors[self.first : self.first + len(self.picks)], self.picks, strict=True):
            if picks is None:
                pieces.append(tensor.reshape(-1, width))
            elif slot.per == "chunk":
                pieces.append(tensor.view(-1, width).index_select(0, picks[0]))
            elif tensor.is_contiguous():
                pieces.append(tensor.view(-1, width).index_select(0, picks[1]))
            else:
                pieces.append(torch.take(tensor, picks[1]).view(-1, width))
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

    def of_tensors(self, rows: Tensor) -> Tensor:
        """For each chunk, the row of its tensor."""
        return rows.index_select(0, self.owner)

    def total(self, rows: Tensor) -> Tensor:
        """The sum of the rows of chunks, per tensor."""
        return torch.segment_reduce(rows, "sum", lengths=self.lengths, axis=0, unsafe=True)


def packs(
    first: int, slots: tuple[str, ...], shapes: Sequence[Shape], block_size: int, sampled: bool, device: torch.device
) -> Iterator[Pack]:
    """Packs of consecutive tensors. A pack has at most `block_size` places or a single tensor."""
    start, places = 0, 0
    for place, shape in enumerate(shapes):
        chunks = chunk_count(shape, CHUNK_LENGTH)
        count = (min(chunks, SAMPLE_CHUNKS) if sampled else chunks) * CHUNK_LENGTH
        if place > start and places + count > block_size:
            yield Pack(first + start, slots, shapes[start:place], sampled, device)
            start, places = place, 0
        places += count
    if shapes:
        yield Pack(first + start, slots, shapes[start:], sampled, device)


def blocks(tensor: int, slots: tuple[str, ...], shape: Shape, block_size: int, whole: bool) -> Iterator[Block]:
    """Blocks of one tensor of at most `block_size` places, or with `whole` one of all whole chunks and the rest."""
    size, run = math.prod(shape), chunk_run(shape, CHUNK_LENGTH)
    chunks = -(-run // CHUNK_LENGTH)
    if run % CHUNK_LENGTH == 0 or run == size:
        # Without padding between runs, they are one.
        for start, stop in _cuts(size, size // CHUNK_LENGTH * CHUNK_LENGTH if whole else block_size):
            yield Block(tensor, slots, start, stop, stop - start, start // CHUNK_LENGTH)
    elif chunks * CHUNK_LENGTH <= block_size:
        for start, stop in _cuts(size, block_size // (chunks * CHUNK_LENGTH) * run):
            yield Block(tensor, slots, start, stop, run, start // run * chunks)
    else:
        for place in range(size // run):
            for start, stop in _cuts(run, block_size):
                first = place * chunks + start // CHUNK_LENGTH
                yield Block(tensor, slots, place * run + start, place * run + stop, stop - start, first)


def _cuts(size: int, length: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, length):
        yield start, min(start + length, size)


def _coordinates(shape: Shape, chunks: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinate in each place of these chunks of a tensor, and whether the place holds one."""
    run = chunk_run(shape, CHUNK_LENGTH)
    per_run = -(-run // CHUNK_LENGTH)
    within = (chunks % per_run)[:, None] * CHUNK_LENGTH + torch.arange(CHUNK_LENGTH)
    return (chunks // per_run)[:, None] * run + within, within < run
