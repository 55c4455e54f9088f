"""Tables by which kernels find tensors: a few launches compute all of them, however many there are."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import _kernel_parts
from ._layout import chunk_count, chunk_run
from ._parts import Matrices, Shape
from ._phases import CHUNK_LENGTH, MEMORY
from ._tiles import contiguous_strides, matrix_strides

AXES = 4
"""Axes of a tensor whose coordinates are not consecutive, after axes that lie together are one."""
COLUMNS = int(_kernel_parts.COLUMNS.value)
_ALIGNED = 16
"""Bytes that a thread reads at once."""
_FOUR = 4
"""Numbers that a thread reads at once."""


class Form(NamedTuple):
    """What tensors have in common that one launch computes."""

    param: torch.dtype
    grad: torch.dtype
    slots: int
    """A bit for each memory slot that the tensors have."""
    plain: bool
    """Whether threads may read several numbers at once."""
    tile: tuple[int, int] = (0, 0)
    """Rows and columns of the block of a tile, powers of two."""


class Launch(NamedTuple):
    """The tensors of one launch, on the device."""

    form: Form
    table: Tensor
    """`COLUMNS` numbers for each tensor."""
    blocks: Tensor
    """For each instance of the kernel the place of its tensor in the table."""
    starts: Tensor
    """For each instance its first chunk, or its tile."""
    first: int
    """The number of instances of earlier launches."""
    ranges: dict[int, tuple[int, int]]
    """Of each tensor, by its row, the instances, counted over all launches."""

    @property
    def instances(self) -> int:
        """Instances of the kernel."""
        return len(self.blocks)


class Member(NamedTuple):
    """A tensor as launches see it."""

    row: int
    param: Tensor
    grad: Tensor
    memory: Mapping[str, Tensor]
    """By the names of a phase's inputs."""
    matrices: Matrices | None
    """Of a tensor that has tiles."""

    @property
    def slots(self) -> int:
        """A bit for each memory slot."""
        return sum(1 << place for place, slot in enumerate(MEMORY) if f"memory.{slot.name}" in self.memory)


def is_direct(member: Member) -> bool:
    """Whether kernels can read the tensor where it lies."""
    arrays = (member.param, member.grad)
    if member.matrices is not None and any(matrix_strides(array, member.matrices.axes) is None for array in arrays):
        return False
    return _axes(member.param.shape, [array.stride() for array in arrays]) is not None


def chunk_launches(members: Sequence[Member], per_block: int, device: torch.device, *, updates: bool) -> list[Launch]:
    """Launches over all chunks of these tensors.

    **Arguments:**

    - `members`: the tensors.
    - `per_block`: chunks that an instance computes.
    - `device`: where the tables are.
    - `updates`: whether memory is read and written too.
    """
    forms: dict[Form, list[Member]] = {}
    for member in members:
        arrays = (member.param, member.grad, *(member.memory.values() if updates else ()))
        is_plain = (
            all(array.is_contiguous() and array.data_ptr() % _ALIGNED == 0 for array in arrays)
            and member.param.numel() % _FOUR == 0
            and _has_no_gaps(tuple(member.param.shape))
        )
        form = Form(member.param.dtype, member.grad.dtype, member.slots if updates else 0, is_plain)
        forms.setdefault(form, []).append(member)
    counts = {form: [chunk_count(tuple(m.param.shape), CHUNK_LENGTH) for m in own] for form, own in forms.items()}
    return [*_launches(forms, counts, per_block, _chunk_row, device)]


def tile_launches(members: Sequence[Member], device: torch.device) -> list[Launch]:
    """Launches over all tiles of these tensors. An instance computes one tile."""
    forms: dict[Form, list[Member]] = {}
    for member in members:
        assert member.matrices is not None
        tile = tuple(max(16, 1 << (side - 1).bit_length()) for side in member.matrices.tiling.shape)
        form = Form(member.param.dtype, member.grad.dtype, member.slots, _has_plain_tiles(member), (tile[0], tile[1]))
        forms.setdefault(form, []).append(member)
    counts = {form: [m.matrices.tiling.count for m in own if m.matrices] for form, own in forms.items()}
    return [*_launches(forms, counts, 1, _tile_row, device)]


def _launches(
    forms: Mapping[Form, Sequence[Member]],
    counts: Mapping[Form, list[int]],
    per_block: int,
    row: Callable[[Member], list[int]],
    device: torch.device,
) -> Iterator[Launch]:
    first = 0
    for form in sorted(forms, key=str):
        blocks = np.array([-(-count // per_block) for count in counts[form]], np.int64)
        starts = np.arange(blocks.sum()) - np.repeat(blocks.cumsum() - blocks, blocks)
        table = np.zeros((len(blocks), COLUMNS), np.int64)
        for place, member in enumerate(forms[form]):
            numbers = row(member)
            table[place, : len(numbers)] = numbers
        owners = np.repeat(np.arange(len(blocks), dtype=np.int32), blocks)
        ends = first + blocks.cumsum()
        ranges = dict(zip(table[:, 0].tolist(), zip((ends - blocks).tolist(), ends.tolist(), strict=True), strict=True))
        arrays = (table, owners, (starts * per_block).astype(np.int32))
        table_, blocks_, starts_ = (torch.from_numpy(array).to(device) for array in arrays)
        yield Launch(form, table_, blocks_, starts_, first, ranges)
        first += len(owners)


def _chunk_row(member: Member) -> list[int]:
    """The numbers of a tensor that is read by chunks."""
    shape = tuple(member.param.shape)
    size, run = math.prod(shape), chunk_run(shape, CHUNK_LENGTH)
    if _has_no_gaps(shape):
        run = size
    chunks = -(-run // CHUNK_LENGTH)
    axes = _axes(shape, [member.param.stride(), member.grad.stride()])
    assert axes is not None
    padded = [(1, (0, 0))] * (AXES - len(axes)) + axes
    sizes = [length for length, _ in padded]
    strides = [strides[array] for array in (0, 1) for _, strides in padded]
    return [member.row, size, chunk_count(shape, CHUNK_LENGTH), run, chunks, *sizes, *strides]


def sample_row(member: Member) -> list[int]:
    """The numbers of a tensor of which sampled chunks are read."""
    return [*_chunk_row(member), member.slots]


def _tile_row(member: Member) -> list[int]:
    """The numbers of a tensor that has tiles, which are turned so that they are no taller than wide."""
    assert member.matrices is not None
    axes, tiles = member.matrices
    strides = [matrix_strides(array, axes) for array in (member.param, member.grad)]
    strides.append(contiguous_strides(axes))
    order = (1, 0) if tiles.is_turned else (0, 1)
    numbers = [tiles.tile[axis] for axis in order]
    numbers += [tiles.sizes[1 + axis] for axis in order]
    numbers += [tiles.grid[axis] for axis in order]
    for each in strides:
        assert each is not None
        numbers += [each[0], *(each[1 + axis] for axis in order)]
    return [member.row, *numbers]


def _has_plain_tiles(member: Member) -> bool:
    """Whether rows of tiles are consecutive numbers, four of which a thread may read at once."""
    row = _tile_row(member)
    sizes, strides = (row[2], row[4]), row[7:]
    arrays = (member.param, member.grad, *member.memory.values())
    is_aligned = all(array.data_ptr() % _ALIGNED == 0 for array in arrays)
    has_rows = all(strides[place] == 1 for place in (2, 5, 8))
    wide = (*sizes, *(strides[place] for place in (0, 1, 3, 4, 6, 7)))
    return is_aligned and has_rows and all(number % _FOUR == 0 for number in wide)


def _has_no_gaps(shape: Shape) -> bool:
    """Whether chunks of a tensor follow each other without padding between them."""
    run = chunk_run(shape, CHUNK_LENGTH)
    return run % CHUNK_LENGTH == 0 or run == math.prod(shape)


def _axes(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, tuple[int, ...]]] | None:
    """The fewest axes with their sizes and their strides in each array; None if they are more than a table holds."""
    axes: list[tuple[int, tuple[int, ...]]] = []
    for size, own in zip(shape, zip(*strides, strict=True), strict=True):
        if size == 1:
            continue
        if axes and all(before == stride * size for before, stride in zip(axes[-1][1], own, strict=True)):
            axes[-1] = (axes[-1][0] * size, own)
        else:
            axes.append((size, own))
    return axes if len(axes) <= AXES else None
