"""How tensors become rows of chunks: small ones packed together, samples of all, and sweeps over large ones."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.shard_alike import shard_alike

from ._phases import CHUNK_LENGTH, SAMPLE_CHUNKS

Shape = tuple[int, ...]
Rows = dict[str, jax.Array]
"""By name, an array with a row for each tensor, or for each chunk."""
Phase = Callable[[Rows], Rows]
Tensors = dict[str, list[jax.Array]]
"""For each input over coordinates, such as `grad`, the tensors' arrays; axes beyond a tensor's are a memory slot's."""


class Piece(NamedTuple):
    """The coordinates of a tensor from `start` on: all of a small tensor, or the end of a large one."""

    tensor: int
    shape: Shape
    start: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape) - self.start

    @property
    def chunks(self) -> int:
        return -(-self.size // CHUNK_LENGTH)

    def take(self, array: jax.Array) -> jax.Array:
        """Rows of chunks, the last one padded with zeros."""
        kept = array.shape[len(self.shape) :]
        flat = array.reshape(-1, *kept)[self.start :].astype(jnp.float32)
        padding = [(0, -self.size % CHUNK_LENGTH, 0), *((0, 0, 0) for _ in kept)]
        return lax.pad(flat, np.float32(0), padding).reshape(self.chunks, CHUNK_LENGTH, *kept)

    def put(self, array: jax.Array, chunks: jax.Array) -> jax.Array:
        """The array with these chunks in their place."""
        new = chunks.reshape(-1, *chunks.shape[2:])[: self.size].astype(array.dtype)
        if self.start:
            new = lax.dynamic_update_slice_in_dim(array.reshape(-1, *chunks.shape[2:]), new, self.start, 0)
        # Left to itself, what was packed with others would lie on every device.
        return shard_alike(array, new.reshape(array.shape))[1]


class Pack(NamedTuple):
    """Pieces whose chunks are the rows of one array."""

    pieces: tuple[Piece, ...]

    @property
    def tensors(self) -> tuple[int, ...]:
        return tuple(piece.tensor for piece in self.pieces)

    def summed(self, phase: Phase, names: Sequence[str], tensors: Tensors, rows: Rows) -> Rows:
        """The phase's rows, summed for each piece."""
        owner = np.repeat(np.arange(len(self.pieces)), [piece.chunks for piece in self.pieces])
        return sums(phase(self._inputs(names, tensors, rows)), owner)

    def mapped(self, phase: Phase, names: Sequence[str], tensors: Tensors, rows: Rows) -> Tensors:
        """The tensors with the phase's outputs in place of the inputs of the same names."""
        tensors = {name: list(arrays) for name, arrays in tensors.items()}
        ends = np.cumsum([piece.chunks for piece in self.pieces])[:-1]
        for name, chunks in _in_halves(phase)(self._inputs(names, tensors, rows)).items():
            for piece, part in zip(self.pieces, jnp.split(chunks, ends), strict=True):
                tensors[name][piece.tensor] = piece.put(tensors[name][piece.tensor], part)
        return tensors

    def _inputs(self, names: Sequence[str], tensors: Tensors, rows: Rows) -> Rows:
        owner = np.repeat(self.tensors, [piece.chunks for piece in self.pieces])
        return {
            name: jnp.concatenate([piece.take(tensors[name][piece.tensor]) for piece in self.pieces])
            if name in tensors
            else rows[name][owner]
            for name in names
        }


class Sample(NamedTuple):
    """The sampled chunks of consecutive tensors: all of few, else evenly spaced ones."""

    first: int
    shapes: tuple[Shape, ...]

    @property
    def tensors(self) -> tuple[int, ...]:
        return tuple(range(self.first, self.first + len(self.shapes)))

    def summed(self, phase: Phase, names: Sequence[str], tensors: Tensors, rows: Rows) -> Rows:
        """The phase's rows, summed for each tensor."""
        places = [_sampled_places(shape) for shape in self.shapes]
        owner = np.repeat(np.arange(len(places)), [len(place) for place in places])
        inputs: Rows = {}
        for name in names:
            if name == "valid":
                inside = [place < math.prod(shape) for place, shape in zip(places, self.shapes, strict=True)]
                inputs[name] = jnp.asarray(np.concatenate(inside))
            elif name in tensors:
                parts = zip(tensors[name][self.first :], self.shapes, places, strict=False)
                inputs[name] = jnp.concatenate([_at(array, shape, place) for array, shape, place in parts])
            else:
                inputs[name] = rows[name][self.first + owner]
        return sums(phase(inputs), owner)


def _sampled_places(shape: Shape) -> np.ndarray:
    """Which coordinates the sampled chunks hold; a place past the last one is padding."""
    chunks = -(-math.prod(shape) // CHUNK_LENGTH)
    taken = min(chunks, SAMPLE_CHUNKS)
    return (np.arange(taken) * chunks // taken)[:, None] * CHUNK_LENGTH + np.arange(CHUNK_LENGTH)


def _at(array: jax.Array, shape: Shape, places: np.ndarray) -> jax.Array:
    if places.size >= math.prod(shape):
        return Piece(0, shape).take(array)
    # By the index on each axis: no device needs more of a tensor than it holds.
    return array[np.unravel_index(places, shape)].astype(jnp.float32)


def sums(values: Rows, owner: np.ndarray) -> Rows:
    """The rows of each owner summed, in the order of the owners' numbers.

    As a tree of sums over rows that are known before it runs: the same every time on every device, where a scatter
    adds in any order, and on rows that devices share unevenly may add what lies past their end.
    """
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner)
    while True:
        groups = -(-counts // _WIDTH)
        starts = np.cumsum(counts) - counts
        place = np.arange(groups.sum()) - np.repeat(np.cumsum(groups) - groups, groups)
        within = place[:, None] * _WIDTH + np.arange(min(_WIDTH, counts.max()))
        is_row = within < np.repeat(counts, groups)[:, None]
        rows = order[np.where(is_row, np.repeat(starts, groups)[:, None] + within, 0)]
        values = {name: _sum_where(is_row, value[rows]) for name, value in values.items()}
        if counts.max() <= _WIDTH:
            return values
        order, counts = np.arange(len(rows)), groups


_WIDTH = 16
"""Rows that are summed at once."""


def _sum_where(is_row: np.ndarray, values: jax.Array) -> jax.Array:
    if values.shape[1] == 1:
        return values[:, 0]
    return jnp.sum(values, axis=1, where=is_row.reshape(*is_row.shape, *(1 for _ in values.shape[2:])))


def _in_halves(phase: Phase) -> Phase:
    """The phase in a loop over two halves of its rows.

    What a loop gives is there before it is used: a compiler does not work the phase out again in each of the copies
    that take its outputs to their tensors.
    """

    def halved(inputs: Rows) -> Rows:
        (rows,) = {value.shape[0] for value in inputs.values()}
        half = -(-rows // 2)

        def split(value: jax.Array) -> jax.Array:
            padding = [(0, 2 * half - rows, 0), *((0, 0, 0) for _ in value.shape[1:])]
            return lax.pad(value, value.dtype.type(0), padding).reshape(2, half, *value.shape[1:])

        outputs = lax.map(phase, jax.tree.map(split, inputs))
        return {name: value.reshape(2 * half, *value.shape[2:])[:rows] for name, value in outputs.items()}

    return halved


class Sweep(NamedTuple):
    """Large tensors of one shape, worked on block by block, in place; a block has as many chunks of each of them."""

    tensors: tuple[int, ...]
    view: Shape
    """How the tensor's coordinates are looked at; a block is `width` places of one axis, and all of the others."""
    axis: int
    width: int
    steps: int
    lanes: tuple[int, ...] = ()
    """Axes of the view that stay axes of the work. Devices that share one evenly each stay with what they hold."""

    @property
    def swept(self) -> int:
        """Coordinates that are worked on; of a tensor without lanes these are the first ones."""
        return math.prod(self.view) // self.view[self.axis] * self.width * self.steps

    def summed(self, phase: Phase, names: Sequence[str], tensors: Tensors, rows: Rows) -> Rows:
        """The phase's rows, summed for each tensor."""
        views = self._views([name for name in names if name in tensors], tensors)

        def block(step: jax.Array | int) -> Rows:
            return {name: self._total(value) for name, value in self._run(phase, names, views, rows, step).items()}

        zeros = jax.tree.map(lambda value: jnp.zeros(value.shape, value.dtype), jax.eval_shape(block, 0))
        return lax.fori_loop(0, self.steps, lambda step, sums: jax.tree.map(jnp.add, sums, block(step)), zeros)

    def mapped(self, phase: Phase, names: Sequence[str], tensors: Tensors, rows: Rows) -> Tensors:
        """The tensors with the phase's outputs in place of the inputs of the same names."""
        tensors = {name: list(arrays) for name, arrays in tensors.items()}
        views = self._views(list(tensors), tensors)
        written = [name for name in tensors if name != "param"]
        if not self.lanes:
            phase = _in_halves(phase)

        def advance(step: jax.Array, held: Tensors) -> Tensors:
            outputs = self._run(phase, names, views | held, rows, step)
            return {name: self._placed(held[name], outputs[name], step) for name in written}

        held = lax.fori_loop(0, self.steps, advance, {name: views[name] for name in written})
        for name in written:
            for tensor, view in zip(self.tensors, held[name], strict=True):
                tensors[name][tensor] = view.reshape(tensors[name][tensor].shape)
        return tensors

    def _views(self, names: Sequence[str], tensors: Tensors) -> Tensors:
        rank = tensors["param"][self.tensors[0]].ndim
        chosen = {name: [tensors[name][tensor] for tensor in self.tensors] for name in names}
        return {name: [a.reshape(*self.view, *a.shape[rank:]) for a in arrays] for name, arrays in chosen.items()}

    def _run(self, phase: Phase, names: Sequence[str], views: Tensors, rows: Rows, step: jax.Array | int) -> Rows:
        """The phase over a block."""
        count, depth = self._chunks(), len(self.lanes)
        inputs: Rows = {}
        for name in names:
            if name in views:
                cut = [lax.dynamic_slice_in_dim(view, step * self.width, self.width, self.axis) for view in views[name]]
                chunks = jnp.stack([self._to_rows(block).astype(jnp.float32) for block in cut], axis=depth)
                inputs[name] = chunks.reshape(*chunks.shape[:depth], -1, *chunks.shape[depth + 2 :])
            else:
                inputs[name] = jnp.repeat(rows[name][np.array(self.tensors)], count, axis=0)
        for _ in self.lanes:
            phase = jax.vmap(phase, in_axes=({name: 0 if name in views else None for name in names},))
        return phase(inputs)

    def _chunks(self) -> int:
        """Chunks of a tensor in a lane's part of a block."""
        lanes = math.prod(self.view[axis] for axis in self.lanes)
        return self.swept // self.steps // lanes // CHUNK_LENGTH

    def _order(self) -> tuple[int, ...]:
        return (*self.lanes, *(axis for axis in range(len(self.view)) if axis not in self.lanes))

    def _to_rows(self, block: jax.Array) -> jax.Array:
        """From the view's axes to lanes, chunks and coordinates of a chunk."""
        kept = tuple(range(len(self.view), block.ndim))
        lanes = (self.view[axis] for axis in self.lanes)
        return block.transpose(*self._order(), *kept).reshape(*lanes, -1, CHUNK_LENGTH, *block.shape[len(self.view) :])

    def _placed(self, views: list[jax.Array], chunks: jax.Array, step: jax.Array) -> list[jax.Array]:
        """The views with a block's chunks in them."""
        order = self._order()
        back = sorted(range(len(order)), key=order.__getitem__)
        depth, rank = len(self.lanes), len(self.view)
        apart = chunks.reshape(*chunks.shape[:depth], len(views), -1, *chunks.shape[depth + 1 :])
        placed = []
        for place, view in enumerate(views):
            shape = [self.width if axis == self.axis else view.shape[axis] for axis in order]
            block = lax.index_in_dim(apart, place, depth, keepdims=False).reshape(*shape, *view.shape[rank:])
            block = block.transpose(*back, *range(rank, view.ndim)).astype(view.dtype)
            placed.append(lax.dynamic_update_slice_in_dim(view, block, step * self.width, self.axis))
        return placed

    def _total(self, values: jax.Array) -> jax.Array:
        """A block's rows, summed for each tensor."""
        depth = len(self.lanes)
        apart = values.reshape(*values.shape[:depth], len(self.tensors), -1, *values.shape[depth + 1 :])
        return jnp.sum(apart, axis=(*range(depth), depth + 1))


SHORTEST = 4096
"""Coordinates of a tensor that a block has at least, so that it is not made of crumbs."""


def plan(shapes: Sequence[Shape], block: int) -> tuple[list[Sweep | Pack], list[Sample]]:
    """How all coordinates, and the sampled ones, are worked on, at most about `block` of them at once."""
    alike: dict[Shape, list[int]] = {}
    pieces: list[Piece] = []
    for tensor, shape in enumerate(shapes):
        if math.prod(shape) > block:
            alike.setdefault(shape, []).append(tensor)
        else:
            pieces.append(Piece(tensor, shape))
    sweeps: list[Sweep | Pack] = []
    for shape, tensors in alike.items():
        while tensors:
            sweep = _with_lanes(tensors, shape, block) or _without_lanes(tensors, shape, block)
            sweeps.append(sweep)
            ends = [Piece(tensor, shape, sweep.swept) for tensor in sweep.tensors]
            pieces.extend(end for end in ends if end.size)
            tensors = tensors[len(sweep.tensors) :]
    packs = [Pack(tuple(pieces[i] for i in part)) for part in _parts([piece.chunks for piece in pieces], block)]
    chunks = [min(-(-math.prod(shape) // CHUNK_LENGTH), SAMPLE_CHUNKS) for shape in shapes]
    samples = [Sample(part[0], tuple(shapes[i] for i in part)) for part in _parts(chunks, block)]
    return [*sweeps, *packs], samples


def _parts(chunks: Sequence[int], block: int) -> list[list[int]]:
    """Consecutive indices in parts of at most `block` coordinates, or of one."""
    parts: list[list[int]] = []
    held = math.inf
    for index, count in enumerate(chunks):
        if held + count * CHUNK_LENGTH > block:
            parts.append([])
            held = 0
        parts[-1].append(index)
        held += count * CHUNK_LENGTH
    return parts


def _without_lanes(tensors: Sequence[int], shape: Shape, block: int) -> Sweep:
    """Consecutive chunks. What does not fill a block is left, unless a block of at least half the size leaves none."""
    size, taken = math.prod(shape), tuple(tensors[: max(block // SHORTEST, 1)])
    places = size // CHUNK_LENGTH
    most = max(block // (len(taken) * CHUNK_LENGTH), 1)
    exact = (width for width in range(most, most // 2, -1) if places % width == 0)
    width = next(exact, places // -(-places // most))
    if size % CHUNK_LENGTH:
        return Sweep(taken, (size,), 0, width * CHUNK_LENGTH, places // width)
    return Sweep(taken, (places, CHUNK_LENGTH), 0, width, places // width)


def _with_lanes(tensors: Sequence[int], shape: Shape, block: int) -> Sweep | None:
    """Lanes for whichever axes the devices share evenly; None where they can share none without cutting chunks."""
    inner = next((axis for axis in reversed(range(len(shape))) if math.prod(shape[axis:]) % CHUNK_LENGTH == 0), None)
    if inner is None:
        return None
    sizes = (*shape[:inner], math.prod(shape[inner:]) // CHUNK_LENGTH)
    lanes = [math.gcd(size, jax.device_count()) for size in sizes]
    if max(lanes) == 1:
        return None
    places = [size // lane for size, lane in zip(sizes, lanes, strict=True)]
    axis = max(range(len(places)), key=places.__getitem__)
    least = math.prod(shape) // places[axis]
    taken = tuple(tensors[: max(block // max(least, SHORTEST), 1)])
    most = min(max(block // (least * len(taken)), 1), places[axis])
    width = next(width for width in range(most, 0, -1) if places[axis] % width == 0)
    view = (*(size for pair in zip(lanes, places, strict=True) for size in pair), CHUNK_LENGTH)
    kept = tuple(2 * i for i, lane in enumerate(lanes) if lane > 1)
    return Sweep(taken, view, 2 * axis + 1, width, places[axis] // width, kept)
