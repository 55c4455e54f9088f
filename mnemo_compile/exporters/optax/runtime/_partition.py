"""Divides tensors into packs, samples, sweeps and wholes."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from ._blocks import regions
from ._chunks import chunks_in_lanes, whole_chunks
from ._devices import device
from ._forms import AbstractForm
from ._layout import Layout
from ._packs import Pack, Piece
from ._phases import ANY_SHAPE, CHUNK_LENGTH
from ._rows import Tensors
from ._samples import Sample, sampled
from ._sweeps import Sweep
from ._tiles import tiles_in_lanes, whole_tiles
from ._wholes import Whole

SHORTEST = 4096
"""The least number of coordinates of one tensor in a block; more tensors per block would make tiny pieces."""

_LARGE = 16
"""Where tensors may be worked on at once, one with more than this part of a block is."""

_READ = 8
"""Blocks that are summed at once: what is left of a block is a number per chunk, so this takes the room of one."""

Part = Sweep | Pack | Whole


class Partition(NamedTuple):
    """The parts that phases work on. Each part works on about `block` coordinates at once, or fewer."""

    chunks: list[Sweep | Pack]
    """All chunks of all tensors, to be summed."""
    elementwise: list[Part]
    """All chunks of tensors without tiles, to be mapped."""
    tiles: list[Sweep | Pack]
    samples: list[Sample]


def partition(layout: Layout, tensors: Tensors, block: int) -> Partition:
    """Divides tensors of this layout."""
    devices, places = jax.device_count(), range(len(layout.shapes))
    slots = [frozenset(name for name, arrays in tensors.items() if place in arrays) for place in places]
    least = max(block // _LARGE, SHORTEST) if device().whole else math.inf
    large = [place for place in places if layout.sizes[place] > least]

    def grouped(some: Iterable[int], form: Callable[[int], AbstractForm]) -> list[tuple[AbstractForm, list[int]]]:
        """Tensors of one form that have the same slots."""
        groups: dict[tuple[AbstractForm, Any], list[int]] = {}
        for place in some:
            groups.setdefault((form(place), slots[place]), []).append(place)
        return [(form, members) for (form, _), members in groups.items()]

    def parts(
        some: Iterable[int], whole: Callable[[int], AbstractForm], lanes: Callable[[int], AbstractForm]
    ) -> list[Sweep | Pack]:
        sweeps: list[Sweep | Pack] = []
        pieces: list[Piece] = []
        for form, members in grouped(some, lanes):
            size = layout.sizes[members[0]]
            if size > block or (size >= SHORTEST and size * len(members) > block):
                sweeps.extend(_sweeps(members, form, block))
            else:
                pieces.extend(Piece(place, whole(place)) for place in members)
        return [*sweeps, *_packs(pieces, block)]

    def whole_of(place: int) -> AbstractForm:
        return whole_chunks(layout.shapes[place])

    def lanes_of(place: int) -> AbstractForm:
        return chunks_in_lanes(layout.shapes[place], devices)

    elementwise = [place for place in places if place not in layout.matrices]
    direct = [place for place in elementwise if ANY_SHAPE and place in large]
    sweeps = [sweep for form, some in grouped(large, lanes_of) for sweep in _sweeps(some, form, _READ * block)]
    return Partition(
        chunks=[*sweeps, *parts([place for place in places if place not in large], whole_of, lanes_of)],
        elementwise=[
            *map(Whole, direct),
            *parts([place for place in elementwise if place not in direct], whole_of, lanes_of),
        ],
        tiles=parts(
            layout.matrices,
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
