"""How tensors become rows of chunks: small tensors share a pack, large ones are cut into blocks."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
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
        own = self._range(slot)
        flat = tensor if own == slice(0, tensor.numel()) else tensor.view(-1)[own]
        return flat.view(-1, *row_shape(slot))

    def scatter(self, rows: Tensor, tensors: list[Tensor], slot: MemorySlot) -> None:
        """Writes rows back."""
        tensor = tensors[self.tensor]
        values = rows.reshape(-1)
        if self.missing and slot.per == "coordinate":
            values = rows.reshape(self.runs, -1)[:, : -self.missing * math.prod(slot.shape)].reshape(-1)
        if tensor.is_contiguous():
            tensor.view(-1)[self._range(slot)].copy_(values)
        else:
            put(tensor, torch.arange(self.start, self.stop, device=tensor.device), values)

    def of_tensors(self, rows: Tensor) -> Tensor:
        """The row of the tensor, which broadcasts over its chunks."""
        return rows[self.tensor : self.tensor + 1]

    def total(self, rows: Tensor) -> Tensor:
        """The sum of the rows of chunks, per tensor."""
        return rows.sum(0, keepdim=True)


class Pack:
    """Chunks of several consecutive tensors, all of each or a sample of it, padded to whole chunks.

    It keeps a few numbers per tensor and per chunk, and none per coordinate.

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
        self.pieces = [_Piece(shape, sampled, device) for shape in shapes]
        self.counts = [piece.chunks for piece in self.pieces]
        """Chunks of each tensor."""
        self.chunks = sum(self.counts)
        self.lengths = torch.tensor(self.counts, device=device)
        self.owners = np.repeat(np.arange(first, first + len(shapes), dtype=np.int32), self.counts)
        """The row of each chunk's tensor."""
        self.owner = torch.tensor(self.owners, device=device)
        self.present: Tensor | None = None
        """If there is padding, how many coordinates each chunk has. Shape chunks × 1."""
        if any(piece.missing for piece in self.pieces):
            present = np.concatenate([piece.present() for piece in self.pieces])
            self.present = torch.tensor(present[:, None], device=device)

    def numbers(self) -> np.ndarray:
        """The place of each chunk among all chunks of its tensor."""
        return np.concatenate([piece.numbers() for piece in self.pieces])

    def valid(self, device: torch.device) -> Tensor:
        """The places of the rows that hold a coordinate."""
        if self.present is None:
            return torch.ones((), dtype=torch.bool, device=device).expand(self.chunks, CHUNK_LENGTH)
        return torch.arange(CHUNK_LENGTH, device=device) < self.present

    def flat(self, tensors: list[Tensor], slot: MemorySlot) -> "FlatPack | None":
        """The arrays of a slot as views, or None if more than zeros at their ends makes rows of them."""
        own = tensors[self.first : self.first + len(self.pieces)]
        if not all(
            piece.is_whole(slot) and tensor.is_contiguous() for piece, tensor in zip(self.pieces, own, strict=True)
        ):
            return None
        width = math.prod(slot.shape)
        tails = [0 if slot.per == "chunk" else piece.tail * width for piece in self.pieces]
        return FlatPack(own, tails, row_shape(slot))

    def gather(self, tensors: list[Tensor], dtype: torch.dtype, slot: MemorySlot) -> Tensor:
        """The rows of a slot."""
        own = tensors[self.first : self.first + len(self.pieces)]
        width = math.prod(slot.shape)
        zeros: dict[int, Tensor] = {}
        rows = []
        for piece, tensor in zip(self.pieces, own, strict=True):
            rows.append(piece.gather(tensor, slot).reshape(-1))
            if piece.tail and slot.per == "coordinate":
                if piece.tail not in zeros:
                    zeros[piece.tail] = tensor.new_zeros(piece.tail * width)
                rows.append(zeros[piece.tail])
        return torch.cat(rows).to(dtype).view(-1, *row_shape(slot))

    def scatter(self, rows: Tensor, tensors: list[Tensor], slot: MemorySlot) -> None:
        """Writes rows back. Only packs without a sample do this."""
        targets = tensors[self.first : self.first + len(self.pieces)]
        width = math.prod(slot.shape)
        if slot.per == "chunk":
            sizes = [(piece.chunks * width, 0) for piece in self.pieces]
        else:
            sizes = [(piece.places * width, piece.tail * width) for piece in self.pieces]
        values = rows.reshape(-1).split([size for both in sizes for size in both])[::2]
        new = [
            piece.joined(value, slot).view(tensor.shape)
            for piece, value, tensor in zip(self.pieces, values, targets, strict=True)
        ]
        torch._foreach_copy_(targets, new)  # pyright: ignore[reportPrivateImportUsage]

    def of_tensors(self, rows: Tensor) -> Tensor:
        """For each chunk, the row of its tensor."""
        return rows.index_select(0, self.owner)

    def total(self, rows: Tensor) -> Tensor:
        """The sum of the rows of chunks, per tensor."""
        return torch.segment_reduce(rows, "sum", lengths=self.lengths, axis=0, unsafe=True)


class FlatPack:
    """Views of small tensors in a pack. To make them once saves most of the time of a small network's step.

    **Arguments:**

    - `tensors`: contiguous arrays.
    - `tails`: the number of zeros after each.
    - `shape`: that of a row.
    """

    def __init__(self, tensors: Sequence[Tensor], tails: Sequence[int], shape: Shape):
        self.arrays = [tensor if tensor.dim() == 1 else tensor.view(-1) for tensor in tensors]
        zeros = {tail: tensors[0].new_zeros(tail) for tail in {*tails}}
        self.shape = shape
        self.places: list[int] = []
        """The place of each array among what is joined."""
        self.joined: list[Tensor] = []
        for array, tail in zip(self.arrays, tails, strict=True):
            self.places.append(len(self.joined))
            self.joined.extend([array, zeros[tail]] if tail else [array])
        self.sizes = [array.numel() for array in self.joined]

    def gather(self, dtype: torch.dtype) -> Tensor:
        """The rows."""
        return torch.cat(self.joined).to(dtype).view(-1, *self.shape)

    def scatter(self, rows: Tensor) -> None:
        """Writes rows back."""
        values = rows.reshape(-1).split(self.sizes)
        torch._foreach_copy_(self.arrays, [values[place] for place in self.places])  # pyright: ignore[reportPrivateImportUsage]


class _Piece:
    """The chunks of one tensor in a pack."""

    def __init__(self, shape: Shape, sampled: bool, device: torch.device):
        size, self.run = math.prod(shape), chunk_run(shape, CHUNK_LENGTH)
        """Coordinates until a new chunk starts."""
        self.runs = size // self.run if size else 0
        self.per_run = -(-self.run // CHUNK_LENGTH)
        self.missing = -self.run % CHUNK_LENGTH
        """Places of the last chunk of each run without a coordinate."""
        self.chunks = self.runs * self.per_run
        self.picks: Tensor | None = None
        """The sampled chunks, or None for all."""
        if sampled and self.chunks > SAMPLE_CHUNKS:
            self.picks = torch.tensor(sampled_chunks(self.chunks, SAMPLE_CHUNKS), device=device)
            self.chunks = SAMPLE_CHUNKS
        self.tail = self.missing if self.runs == 1 and self.picks is None else 0
        """Places after the last coordinate, if that is all the padding. The pack appends it."""
        self.places = self.chunks * CHUNK_LENGTH - self.tail
        """Places without the tail."""

    def numbers(self) -> np.ndarray:
        """The place of each chunk among all chunks of the tensor."""
        return np.arange(self.chunks) if self.picks is None else np.asarray(self.picks.cpu())

    def present(self) -> np.ndarray:
        """How many coordinates each chunk has. Shape chunks, uint8 or wider."""
        present = np.minimum(self.run - self.numbers() % self.per_run * CHUNK_LENGTH, CHUNK_LENGTH)
        return present.astype(np.int16)

    def is_whole(self, slot: MemorySlot) -> bool:
        """Whether the numbers of a slot without the tail are the tensor."""
        return self.picks is None and (slot.per == "chunk" or self.tail > 0 or not self.missing)

    def gather(self, tensor: Tensor, slot: MemorySlot) -> Tensor:
        """The numbers of a slot in the places of the chunks, without the tail."""
        if self.is_whole(slot):
            return tensor
        width = math.prod(slot.shape)
        if slot.per == "chunk":
            values = tensor.reshape(-1, width)
        elif self.picks is not None and (self.missing or not tensor.is_contiguous()):
            return self._sampled(tensor, width)
        else:
            values = tensor.reshape(self.runs, self.run * width)
            if self.missing:
                values = torch.nn.functional.pad(values, (0, self.missing * width))
            values = values.reshape(-1, CHUNK_LENGTH * width)
        return values if self.picks is None else values.index_select(0, self.picks)

    def _sampled(self, tensor: Tensor, width: int) -> Tensor:
        """The sampled chunks of coordinates, without a copy of the whole tensor."""
        assert self.picks is not None
        within = (self.picks % self.per_run)[:, None] * CHUNK_LENGTH
        within = within + torch.arange(CHUNK_LENGTH, device=tensor.device)
        places = (self.picks // self.per_run)[:, None] * self.run + within.clamp(max=self.run - 1)
        if width > 1:
            values = tensor.reshape(-1, width)[places]
        else:
            values = torch.take(tensor, places)[:, :, None]
        return torch.where((within < self.run)[:, :, None], values, 0).view(-1, CHUNK_LENGTH * width)

    def joined(self, places: Tensor, slot: MemorySlot) -> Tensor:
        """The numbers in the places of the chunks, without padding between runs."""
        if self.tail or not self.missing or slot.per == "chunk":
            return places
        width = math.prod(slot.shape)
        return places.view(self.runs, self.per_run * CHUNK_LENGTH * width)[:, : self.run * width].reshape(-1)


def put(tensor: Tensor, places: Tensor, values: Tensor) -> None:
    """Writes values to these places of a tensor in row-major order, whatever its strides, and deterministically."""
    tensor.index_put_(torch.unravel_index(places, tensor.shape), values.to(tensor.dtype))


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
