"""Divides tensors into packs, samples and sweeps."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from ._blocks import regions
from ._chunks import chunks_in_lanes, whole_chunks
from ._forms import AbstractForm
from ._layout import Layout
from ._packs import Pack, Piece
from ._phases import CHUNK_LENGTH
from ._rows import Tensors
from ._samples import Sample, sampled
from ._sweeps import Sweep
from ._tiles import tiles_in_lanes, whole_tiles

SHORTEST = 4096
"""The least number of coordinates of one tensor in a block; more tensors per block would make tiny pieces."""

Part = Sweep | Pack


class Partition(NamedTuple):
    """The parts that phases work on. Each part works on about `block` coordinates at once, or fewer."""

    tiled: list[Part]
    """All chunks of tensors that have tiles."""
    elementwise: list[Part]
    """All chunks of the other tensors."""
    tiles: list[Part]
    samples: list[Sample]


def partition(layout: Layout, tensors: Tensors, block: int) -> Partition:
    """Divides tensors of this layout."""
    devices = jax.device_count()
    slots = [
        frozenset(name for name, arrays in tensors.items() if place in arrays) for place in range(len(layout.shapes))
    ]

    def parts(
        places: Sequence[int], whole: Callable[[int], AbstractForm], lanes: Callable[[int], AbstractForm]
    ) -> list[Part]:
        groups: dict[tuple[AbstractForm, Any], list[int]] = {}
        for place in places:
            groups.setdefault((lanes(place), slots[place]), []).append(place)
        sweeps: list[Part] = []
        pieces: list[Piece] = []
        for (form, _), members in groups.items():
            size = layout.sizes[members[0]]
            if size > block or (size >= SHORTEST and size * len(members) > block):
                sweeps.extend(_sweeps(members, form, block))
            else:
                pieces.extend(Piece(place, whole(place)) for place in members)
        return [*sweeps, *_packs(pieces, block)]

    def chunks(places: Sequence[int]) -> list[Part]:
        return parts(
            places, lambda i: whole_chunks(layout.shapes[i]), lambda i: chunks_in_lanes(layout.shapes[i], devices)
        )

    return Partition(
        tiled=chunks([*layout.matrices]),
        elementwise=chunks([place for place in range(len(slots)) if place not in layout.matrices]),
        tiles=parts(
            [*layout.matrices],
            lambda i: whole_tiles(*layout.matrices[i]),
            lambda i: tiles_in_lanes(*layout.matrices[i], devices),
        ),
        samples=_samples(layout, block),
    )


def _sweeps(places: Sequence[int], form: AbstractForm, block: int) -> Iterator[Sweep]:
    """Sweeps over tensors of one form that have the same slots."""
    most = max(block // max(form.least(), SHORTEST), 1)
    for start in range(0, len(places), most):
        some = tuple(places[start : start + most])
        for region in regions(form.view, form.units, block // len(some)):
            yield Sweep(some, form, region)


def _packs(pieces: Sequence[Piece], block: int) -> Iterator[Pack]:
    """Pieces whose rows have one shape are packed together."""
    groups: dict[tuple[int, ...], list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.form.row_shape("grad"), []).append(piece)
    for shape, members in groups.items():
        for part in _parts([piece.height * math.prod(shape) for piece in members], block):
            yield Pack(tuple(members[i] for i in part))


def _samples(layout: Layout, block: int) -> list[Sample]:
    coordinates = [len(sampled(shape)) * CHUNK_LENGTH for shape in layout.shapes]
    return [Sample(part[0], tuple(layout.shapes[i] for i in part)) for part in _parts(coordinates, block)]


def _parts(coordinates: Sequence[int], block: int) -> list[list[int]]:
    """Consecutive indices in parts. A part has at most `block` coordinates or a single index."""
    parts: list[list[int]] = []
    total = math.inf
    for index, count in enumerate(coordinates):
        if total + count > block:
            parts.append([])
            total = 0
        parts[-1].append(index)
        total += count
    return parts
