"""The sampled chunks of all tensors, which one launch per array gathers, however many tensors there are."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._partition import Partition
from ._parts import HAS_SAMPLES, Shape
from ._phases import CHUNK_LENGTH
from ._rows import NUMBER, Pack, packs, SLOTS
from ._tables import COLUMNS, Member, sample_row

ARRAYS = ("param", "grad", *SLOTS)
"""Arrays of a tensor, in the order of a launcher's pointers."""

_ROWS = max(1024 // CHUNK_LENGTH, 1)
"""Chunks that an instance gathers."""
_SHARE = 256
"""A sample of up to this part of all coordinates is one pack, whatever its size."""


class Gather(NamedTuple):
    """Rows of a pack that one launch writes."""

    dtype: torch.dtype
    """Of what it reads."""
    targets: Tensor
    """The rows, on the device."""


class Samples:
    """Packs of the sampled chunks of all tensors, whatever memory they have, and tables by which a kernel finds them.

    **Arguments:**

    - `partition`: of the tensors.
    - `shapes`: those of the tensors, in the order of their rows.
    - `device`: the device of the tensors.
    """

    def __init__(self, partition: Partition, shapes: Sequence[Shape], device: torch.device):
        self.device = device
        size = max(partition.length, sum(map(math.prod, shapes)) // _SHARE)
        self.packs = [*packs(0, tuple(SLOTS), shapes, size, True, device)] if HAS_SAMPLES else []
        self._chunks = [self._integers(pack.numbers()) for pack in self.packs]
        """For each row of a pack, the place of its chunk among all chunks of its tensor."""
        self._table = torch.zeros(0)
        self._gathers: list[dict[str, list[Gather]]] = []

    def _integers(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int32)).to(self.device)

    def plan(self, members: Sequence[Member], tensors: Mapping[str, Sequence[Tensor]]) -> None:
        """Writes the tables anew, for tensors whose strides or dtypes have changed."""
        if not self.packs:
            return
        count = len(tensors["param"])
        table = np.zeros((count, COLUMNS), np.int64)
        for member in members:
            numbers = sample_row(member)
            table[member.row, : len(numbers)] = numbers
        self._table = torch.from_numpy(table).to(self.device)
        dtypes = {name: [tensor.dtype for tensor in tensors[name]] for name in ("param", "grad")}
        dtypes.update((name, [getattr(torch, slot.dtype)] * count) for name, slot in SLOTS.items())
        self._gathers = [{name: [*self._of_dtypes(pack, own)] for name, own in dtypes.items()} for pack in self.packs]

    def _of_dtypes(self, pack: Pack, dtypes: Sequence[torch.dtype]) -> Iterator[Gather]:
        """The rows of a pack, by the dtype of their tensors."""
        kinds = sorted({*dtypes}, key=str)
        numbers = np.array([kinds.index(dtype) for dtype in dtypes])[pack.owners]
        for number, dtype in enumerate(kinds):
            rows = np.flatnonzero(numbers == number)
            if len(rows):
                yield Gather(dtype, self._integers(rows))

    def launches(self, name: str, pack: Pack) -> Iterator[tuple[torch.dtype, int, dict[str, Any]]]:
        """The launches that gather an array: the dtype, the number of instances, and arguments of the kernel."""
        slot, number = SLOTS.get(name, NUMBER), self.packs.index(pack)
        for dtype, targets in self._gathers[number][name]:
            yield (
                dtype,
                -(-len(targets) // _ROWS),
                {
                    "table": self._table,
                    "targets": targets,
                    "owners": pack.owner,
                    "chunks": self._chunks[number],
                    "count": len(targets),
                    "ARRAY": ARRAYS.index(name),
                    "WIDTH": math.prod(slot.shape),
                    "PER_CHUNK": slot.per == "chunk",
                    "LENGTH": CHUNK_LENGTH,
                    "BLOCK": _ROWS,
                },
            )
