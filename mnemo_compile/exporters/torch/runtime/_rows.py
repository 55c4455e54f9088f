"""How tensors become rows of chunks: small tensors share a pack, large ones are cut into blocks."""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ._phases import CHUNK_LENGTH, MEMORY, OF_CHUNKS, ROLES, SAMPLE_CHUNKS

Shape = tuple[int, ...]


class Slot(NamedTuple):
    """What a tensor holds for each of its coordinates, or of its chunks."""

    shape: Shape = ()
    of_chunks: bool = False

    @property
    def size(self) -> int:
        """Numbers in a chunk's row."""
        return math.prod(self.shape) * (1 if self.of_chunks else CHUNK_LENGTH)

    @property
    def row(self) -> Shape:
        """The shape of a chunk's row."""
        return self.shape if self.of_chunks else (CHUNK_LENGTH, *self.shape)


NUMBER = Slot()
SLOTS = {f"memory.{name}": Slot(shape, name in OF_CHUNKS) for name, shape in MEMORY.items()}
"""By the names of a phase's inputs."""


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
        """Which places of the rows hold a coordinate."""
        if not self.missing:
            return torch.ones((), dtype=torch.bool, device=device).expand(self.chunks, CHUNK_LENGTH)
        places = torch.arange(self.chunks * CHUNK_LENGTH, device=device)
        return (places < self.stop - self.start).view(-1, CHUNK_LENGTH)

    def gather(self, tensors: list[Tensor], dtype: torch.dtype, slot: Slot) -> Tensor:
        """The rows, of which each coordinate or chunk has a `slot`; a view where they lie in memory in this dtype."""
        values = self._read(tensors[self.tensor], slot).to(dtype)
        if self.missing and not slot.of_chunks:
            values = torch.nn.functional.pad(values, (0, self.missing * math.prod(slot.shape)))
        return values.view(-1, *slot.row)

    def _range(self, slot: Slot) -> slice:
        """Where the block's numbers are among the tensor's."""
        start = self.start // CHUNK_LENGTH * slot.size
        missing = 0 if slot.of_chunks else self.missing * math.prod(slot.shape)
        return slice(start, start + self.chunks * slot.size - missing)

    def _read(self, tensor: Tensor, slot: Slot) -> Tensor:
        """Numbers in row-major order, without a copy of the whole tensor."""
        if tensor.is_contiguous():
            return tensor.view(-1)[self._range(slot)]
        return torch.take(tensor, torch.arange(self.start, self.stop, device=tensor.device))

    def view(self, tensors: list[Tensor], slot: Slot) -> Tensor | None:
        """The rows as they lie in memory, where they do."""
        tensor = tensors[self.tensor]
        if not tensor.is_contiguous() or self.missing:
            return None
        return tensor.view(-1)[self._range(slot)].view(-1, *slot.row)

    def scatter(self, rows: Tensor, tensors: list[Tensor], slot: Slot) -> None:
        """Writes rows back."""
        tensor, places = tensors[self.tensor], self._range(slot)
        values = rows.reshape(-1)[: places.stop - places.start]
        if tensor.is_contiguous():
            tensor.view(-1)[places].copy_(values)
        else:
            places = torch.arange(self.start, self.stop, device=tensor.device)
            tensor.put_(places, values.to(tensor.dtype))

    def of_chunks(self, rows: Tensor) -> Tensor:
        """The row of the tensor, once for all its chunks."""
        return rows[self.tensor : self.tensor + 1]

    def total(self, rows: Tensor) -> Tensor:
        """Rows of chunks, summed for each of the tensors."""
        return rows.sum(0, keepdim=True)


class Pack:
    """Chunks of several consecutive tensors, all of each or a sample of it, padded to whole chunks."""

    def __init__(self, first: int, sizes: list[int], sampled: bool, device: torch.device):
        self.first = first
        self.sizes = sizes
        self.picks: list[Tensor | None] = []
        """For each tensor the chunks that are taken, or None for all."""
        masks, lengths, sources, targets = [], [], [], []
        coordinates, places = 0, 0
        for size in sizes:
            chunks = chunks_of(size)
            if sampled and chunks > SAMPLE_CHUNKS:
                self.picks.append((torch.arange(SAMPLE_CHUNKS) * chunks // SAMPLE_CHUNKS).to(device))
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
        """Where there is any: the coordinate in each place, counted from 1, or 0; and the place of each coordinate."""
        if coordinates < places:
            self.padding = (torch.cat(sources).to(device), torch.cat(targets).to(device))

    def valid(self, device: torch.device) -> Tensor:
        """Which places of the rows hold a coordinate."""
        return self.mask

    def gather(self, tensors: list[Tensor], dtype: torch.dtype, slot: Slot) -> Tensor:
        """The rows, of which each coordinate or chunk has a `slot`."""
        width = math.prod(slot.shape)
        pieces = []
        for place, (size, picked) in enumerate(zip(self.sizes, self.picks, strict=True), self.first):
            tensor = tensors[place]
            if slot.of_chunks:
                rows = tensor.view(-1, width)
                pieces.append(rows if picked is None else rows.index_select(0, picked))
            elif picked is None:
                pieces.append(tensor.reshape(-1, width))
            elif tensor.is_contiguous():
                # The sample of a tensor never holds its last chunk, the one that may be short.
                whole = size // CHUNK_LENGTH
                chunks = tensor.view(-1)[: whole * CHUNK_LENGTH * width].view(whole, -1)
                pieces.append(chunks.index_select(0, picked).view(-1, width))
            else:
                places = picked[:, None] * CHUNK_LENGTH + torch.arange(CHUNK_LENGTH, device=picked.device)
                pieces.append(torch.take(tensor, places).view(-1, width))
        if self.padding is None or slot.of_chunks:
            values = torch.cat(pieces)
        else:
            values = torch.cat([pieces[0].new_zeros(1, width), *pieces]).index_select(0, self.padding[0])
        return values.to(dtype).view(-1, *slot.row)

    def scatter(self, rows: Tensor, tensors: list[Tensor], slot: Slot) -> None:
        """Writes rows back, of a pack that is no sample."""
        mine = tensors[self.first : self.first + len(self.sizes)]
        values = rows.reshape(-1, math.prod(slot.shape))
        if self.padding is not None and not slot.of_chunks:
            values = values.index_select(0, self.padding[1])
        sizes = self.counts if slot.of_chunks else self.sizes
        new = [piece.view(tensor.shape) for piece, tensor in zip(values.split(sizes), mine, strict=True)]
        torch._foreach_copy_(mine, new)  # pyright: ignore[reportPrivateImportUsage]

    def of_chunks(self, rows: Tensor) -> Tensor:
        """The row of its tensor, for each of the chunks."""
        return rows.index_select(0, self.owner)

    def total(self, rows: Tensor) -> Tensor:
        """Rows of chunks, summed for each of the tensors."""
        return torch.segment_reduce(rows, "sum", lengths=self.lengths, axis=0, unsafe=True)


Part = Pack | Block


class Plan:
    """How tensors of these shapes are cut: once over all chunks, once over the sample.

    **Arguments:**

    - `shapes`: of the tensors, none of them empty.
    - `roles`: of the tensors.
    - `groups`: the number of each tensor's parameter group.
    - `block_size`: coordinates that are worked on at once, at most.
    - `whole`: whether a tensor of more coordinates is one block, up to its last whole chunk.
    - `device`, `dtype`: of the arithmetic.
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
        facts = _facts([shapes[place] for place in self.order], [roles[place] for place in self.order])
        self.facts = {name: value.to(device, dtype) for name, value in facts.items()}


_remembered = functools.lru_cache(maxsize=64)(Plan)


def plan(
    shapes: tuple[Shape, ...],
    roles: tuple[str, ...],
    groups: tuple[int, ...],
    block_size: int,
    whole: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> Plan:
    """The plan for tensors of these shapes, made once."""
    make = Plan if torch.compiler.is_compiling() else _remembered
    return make(shapes, roles, groups, block_size, whole, device, dtype)


def chunks_of(coordinates: int) -> int:
    """Chunks that hold this many coordinates, the last one padded."""
    return -(-coordinates // CHUNK_LENGTH)


def _packs(first: int, sizes: list[int], block_size: int, sampled: bool, device: torch.device) -> Iterator[Pack]:
    """Consecutive tensors in packs of at most `block_size` coordinates, or of one tensor."""
    start, held = 0, 0
    for place, size in enumerate(sizes):
        chunks = min(chunks_of(size), SAMPLE_CHUNKS) if sampled else chunks_of(size)
        if place > start and held + chunks * CHUNK_LENGTH > block_size:
            yield Pack(first + start, sizes[start:place], sampled, device)
            start, held = place, 0
        held += chunks * CHUNK_LENGTH
    if sizes:
        yield Pack(first + start, sizes[start:], sampled, device)


_TALL = 16


def role_of(shape: Shape) -> str:
    """The role of a tensor of which only the shape is known."""
    axes = sorted(size for size in shape if size != 1)
    if len(axes) < 2:
        return "vector"
    if len(axes) > 2:
        return "convolution"
    return "embedding" if axes[1] >= _TALL * axes[0] else "matrix"


def _facts(shapes: list[Shape], roles: list[str]) -> dict[str, Tensor]:
    """What the cell is told of each tensor's shape."""
    matrix = [len(shape) >= 2 for shape in shapes]
    counts = [math.prod(shape) for shape in shapes]
    return {
        "facts.coordinates": torch.tensor([float(count) for count in counts]),
        "facts.matrix": torch.tensor([float(is_matrix) for is_matrix in matrix]),
        "facts.aspect": torch.tensor(
            [max(s) ** 2 / n if is_matrix else 1.0 for s, n, is_matrix in zip(shapes, counts, matrix, strict=True)]
        ),
        "facts.role": torch.tensor([float(ROLES.index(role)) for role in roles]),
    }
