"""Divides tensors into packs, samples and sweeps."""

import math
from collections.abc import Sequence

import jax

from ._packs import Pack, Piece
from ._phases import CHUNK_LENGTH
from ._rows import Tensors
from ._samples import Sample, sampled
from ._sweeps import Sweep
from ._tensors import Shape, whole_axis

SHORTEST = 4096
"""The least number of coordinates of one tensor in a block; more tensors per block would make tiny pieces."""


def partition(tensors: Tensors, block: int) -> tuple[list[Sweep | Pack], list[Sample]]:
    """Sweeps and packs of all coordinates, and samples. Each works on about `block` coordinates at once, or fewer."""
    shapes = [param.shape for param in tensors["param"].values()]
    groups: dict[tuple[Shape, frozenset[str]], list[int]] = {}
    pieces: list[Piece] = []
    for tensor, shape in enumerate(shapes):
        if math.prod(shape) > block:
            slots = frozenset(name for name, arrays in tensors.items() if tensor in arrays)
            groups.setdefault((shape, slots), []).append(tensor)
        else:
            pieces.append(Piece(tensor, shape))
    sweeps: list[Sweep | Pack] = []
    for (shape, _), remaining in groups.items():
        while remaining:
            sweep = _with_lanes(remaining, shape, block) or _without_lanes(remaining, shape, block)
            sweeps.append(sweep)
            ends = [Piece(tensor, shape, sweep.swept) for tensor in sweep.tensors]
            pieces.extend(end for end in ends if end.size)
            remaining = remaining[len(sweep.tensors) :]
    packs = [Pack(tuple(pieces[i] for i in part)) for part in _parts([piece.chunks for piece in pieces], block)]
    chunks = [len(sampled(shape)) for shape in shapes]
    samples = [Sample(part[0], tuple(shapes[i] for i in part)) for part in _parts(chunks, block)]
    return [*sweeps, *packs], samples


def _parts(chunks: Sequence[int], block: int) -> list[list[int]]:
    """Consecutive indices in parts. A part has at most `block` coordinates or a single index."""
    parts: list[list[int]] = []
    coordinates = math.inf
    for index, count in enumerate(chunks):
        if coordinates + count * CHUNK_LENGTH > block:
            parts.append([])
            coordinates = 0
        parts[-1].append(index)
        coordinates += count * CHUNK_LENGTH
    return parts


def _without_lanes(tensors: Sequence[int], shape: Shape, block: int) -> Sweep:
    """A sweep over consecutive chunks, which may leave a rest to packs.

    A block of at least half the size is preferred if it leaves no rest.
    """
    size, members = math.prod(shape), tuple(tensors[: max(block // SHORTEST, 1)])
    places = size // CHUNK_LENGTH
    most = max(block // (len(members) * CHUNK_LENGTH), 1)
    exact = (width for width in range(most, most // 2, -1) if places % width == 0)
    width = next(exact, places // -(-places // most))
    if size % CHUNK_LENGTH:
        return Sweep(members, (size,), 0, width * CHUNK_LENGTH, places // width)
    return Sweep(members, (places, CHUNK_LENGTH), 0, width, places // width)


def _with_lanes(tensors: Sequence[int], shape: Shape, block: int) -> Sweep | None:
    """A sweep with lanes for the axes that devices divide evenly. None if no axis divides without cutting chunks."""
    inner = whole_axis(shape)
    if inner is None:
        return None
    sizes = (*shape[:inner], math.prod(shape[inner:]) // CHUNK_LENGTH)
    lanes = [math.gcd(size, jax.device_count()) for size in sizes]
    if max(lanes) == 1:
        return None
    places = [size // lane for size, lane in zip(sizes, lanes, strict=True)]
    axis = max(range(len(places)), key=places.__getitem__)
    least = math.prod(shape) // places[axis]
    members = tuple(tensors[: max(block // max(least, SHORTEST), 1)])
    most = min(max(block // (least * len(members)), 1), places[axis])
    width = next(width for width in range(most, 0, -1) if places[axis] % width == 0)
    view = (*(size for pair in zip(lanes, places, strict=True) for size in pair), CHUNK_LENGTH)
    axes = tuple(2 * i for i, lane in enumerate(lanes) if lane > 1)
    return Sweep(members, view, 2 * axis + 1, width, places[axis] // width, axes)
