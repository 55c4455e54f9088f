"""How tensors become rows of chunks: small ones packed together, samples of all, and sweeps over large ones."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.shard_alike import shard_alike

from ._phases import CHUNK_LENGTH, MEMORY, OF_CHUNKS, SAMPLE_CHUNKS
from ._tensors import chunk_count, Shape, whole_axis

Rows = dict[str, jax.Array]
"""By name, an array with a row for each tensor, or for each chunk."""
Phase = Callable[[Rows], Rows]
Tensors = dict[str, dict[int, jax.Array]]
"""For each input over chunks, such as `grad`, the arrays of the tensors, by number, that keep it.

An array has the tensor's axes, or of what chunks keep one axis of chunks, and then those of what is kept.
"""

Views = dict[str, list[jax.Array]]
"""For each input over chunks, the arrays of tensors that are worked on together."""

_KEPT: dict[str, Shape] = {"param": (), "grad": (), **{f"memory.{slot}": shape for slot, shape in MEMORY.items()}}
"""For each input over chunks, the shape of what a coordinate or a chunk has of it."""
_OF_CHUNKS = {f"memory.{slot}" for slot in OF_CHUNKS}


def _rows_shape(name: str, chunks: int) -> Shape:
    """Of an input's rows."""
    return (chunks, *_KEPT[name]) if name in _OF_CHUNKS else (chunks, CHUNK_LENGTH, *_KEPT[name])


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

    def take(self, name: str, arrays: Mapping[int, jax.Array]) -> jax.Array:
        """Rows of chunks, the last one padded with zeros; zeros of what the tensor does not keep."""
        shape = _rows_shape(name, self.chunks)
        if self.tensor not in arrays:
            return jnp.zeros(shape, jnp.float32)
        flat = self._flat(name, arrays[self.tensor])[self._first(name) :].astype(jnp.float32)
        missing = 0 if name in _OF_CHUNKS else -self.size % CHUNK_LENGTH
        padding = [(0, missing, 0), *((0, 0, 0) for _ in _KEPT[name])]
        return lax.pad(flat, np.float32(0), padding).reshape(shape)

    def put(self, name: str, array: jax.Array, chunks: jax.Array) -> jax.Array:
        """The array with these chunks in their place."""
        size = self.chunks if name in _OF_CHUNKS else self.size
        new = self._flat(name, chunks)[:size].astype(array.dtype)
        if self.start:
            new = lax.dynamic_update_slice_in_dim(self._flat(name, array), new, self._first(name), 0)
        # Left to itself, what was packed with others would lie on every device.
        return shard_alike(array, new.reshape(array.shape))[1]

    def _first(self, name: str) -> int:
        return self.start // CHUNK_LENGTH if name in _OF_CHUNKS else self.start

    def _flat(self, name: str, array: jax.Array) -> jax.Array:
        return array.reshape(-1, *_KEPT[name])


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
        tensors = {name: dict(arrays) for name, arrays in tensors.items()}
        ends = np.cumsum([piece.chunks for piece in self.pieces])[:-1]
        unkept = _unkept(self.tensors, tensors)
        inputs = self._inputs([name for name in names if name not in unkept], tensors, rows)
        for name, chunks in _in_halves(_with_zeros(phase, names, unkept))(inputs).items():
            for piece, part in zip(self.pieces, jnp.split(chunks, ends), strict=True):
                if piece.tensor in tensors[name]:
                    tensors[name][piece.tensor] = piece.put(name, tensors[name][piece.tensor], part)
        return tensors

    def _inputs(self, names: Sequence[str], tensors: Tensors, rows: Rows) -> Rows:
        owner = np.repeat(self.tensors, [piece.chunks for piece in self.pieces])
        inputs: Rows = {}
        for name in names:
            if name == "valid":
                left = [piece.size - np.arange(piece.chunks) * CHUNK_LENGTH for piece in self.pieces]
                inputs[name] = _within(np.concatenate(left))
            elif name in tensors:
                inputs[name] = jnp.concatenate([piece.take(name, tensors[name]) for piece in self.pieces])
            else:
                inputs[name] = rows[name][owner]
        return inputs


class Sample(NamedTuple):
    """The sampled chunks of consecutive tensors: all of few, else evenly spaced ones."""

    first: int
    shapes: tuple[Shape, ...]

    @property
    def tensors(self) -> tuple[int, ...]:
        return tuple(range(self.first, self.first + len(self.shapes)))

    def summed(self, phase: Phase, names: Sequence[str], tensors: Tensors, rows: Rows) -> Rows:
        """The phase's rows, summed for each tensor."""
        chunks = [_sampled(shape) for shape in self.shapes]
        owner = np.repeat(np.arange(len(chunks)), [len(some) for some in chunks])
        inputs: Rows = {}
        for name in names:
            if name == "valid":
                sizes = np.array([math.prod(shape) for shape in self.shapes])
                inputs[name] = _within(sizes[owner] - np.concatenate(chunks) * CHUNK_LENGTH)
            elif name in tensors:
                parts = zip(self.tensors, self.shapes, chunks, strict=True)
                inputs[name] = jnp.concatenate([_at(name, tensors[name], *part) for part in parts])
            else:
                inputs[name] = rows[name][self.first + owner]
        return sums(phase(inputs), owner)


def _sampled(shape: Shape) -> np.ndarray:
    """The sampled chunks of a tensor."""
    chunks = chunk_count(shape)
    taken = min(chunks, SAMPLE_CHUNKS)
    return np.arange(taken) * chunks // taken


def _at(name: str, arrays: Mapping[int, jax.Array], tensor: int, shape: Shape, chunks: np.ndarray) -> jax.Array:
    """Rows of some chunks of a tensor."""
    if tensor not in arrays:
        return jnp.zeros(_rows_shape(name, len(chunks)), jnp.float32)
    if len(chunks) == chunk_count(shape):
        return Piece(tensor, shape).take(name, arrays)
    if name in _OF_CHUNKS:
        return arrays[tensor][chunks].astype(jnp.float32)
    # By the index on each axis: no device needs more of a tensor than it holds. The last chunk is never among some.
    places = chunks[:, None] * CHUNK_LENGTH + np.arange(CHUNK_LENGTH)
    return arrays[tensor][np.unravel_index(places, shape)].astype(jnp.float32)


def _within(left: np.ndarray) -> jax.Array:
    """Which places of chunks hold coordinates, of which so many are left where each chunk begins."""
    return jnp.arange(CHUNK_LENGTH) < jnp.asarray(np.minimum(left, CHUNK_LENGTH))[:, None]


def _unkept(members: Sequence[int], tensors: Tensors) -> list[str]:
    """What none of these tensors keeps."""
    return [name for name, arrays in tensors.items() if not any(tensor in arrays for tensor in members)]


def _with_zeros(phase: Phase, names: Sequence[str], unkept: Sequence[str], is_valid: bool = False) -> Phase:
    """The phase of what is kept: the rest is zeros, and what the phase gives for it is dropped.

    If `is_valid`, every place holds a coordinate.
    """

    def with_zeros(inputs: Rows) -> Rows:
        (rows,) = {value.shape[0] for value in inputs.values()}
        known: Rows = {name: jnp.zeros(_rows_shape(name, rows), jnp.float32) for name in names if name in unkept}
        if is_valid and "valid" in names:
            known["valid"] = jnp.ones((rows, CHUNK_LENGTH), bool)
        return {name: value for name, value in phase({**inputs, **known}).items() if name not in unkept}

    return with_zeros


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
        views = self._views(names, tensors)
        phase = _with_zeros(phase, names, _unkept(self.tensors, tensors), is_valid=True)

        def block(step: jax.Array | int) -> Rows:
            return {name: self._total(value) for name, value in self._run(phase, names, views, rows, step).items()}

        zeros = jax.tree.map(lambda value: jnp.zeros(value.shape, value.dtype), jax.eval_shape(block, 0))
        return lax.fori_loop(0, self.steps, lambda step, sums: jax.tree.map(jnp.add, sums, block(step)), zeros)

    def mapped(self, phase: Phase, names: Sequence[str], tensors: Tensors, rows: Rows) -> Tensors:
        """The tensors with the phase's outputs in place of the inputs of the same names."""
        tensors = {name: dict(arrays) for name, arrays in tensors.items()}
        views = self._views(list(tensors), tensors)
        written = [name for name in views if name != "param"]
        phase = _with_zeros(phase, names, _unkept(self.tensors, tensors), is_valid=True)
        if not self.lanes:
            phase = _in_halves(phase)

        def advance(step: jax.Array, held: Views) -> Views:
            outputs = self._run(phase, names, views | held, rows, step)
            return {name: self._placed(name, held[name], outputs[name], step) for name in written}

        held = lax.fori_loop(0, self.steps, advance, {name: views[name] for name in written})
        for name in written:
            for tensor, view in zip(self.tensors, held[name], strict=True):
                old = tensors[name][tensor]
                new = view.reshape(old.shape)
                # An array with one axis of chunks may not lie as the view does.
                tensors[name][tensor] = shard_alike(old, new)[1] if name in _OF_CHUNKS else new
        return tensors

    def _shape(self, name: str) -> Shape:
        """How the places of an array are looked at: what has a number for each chunk lacks the last axis."""
        if name not in _OF_CHUNKS:
            return self.view
        return self.view[:-1] or (chunk_count(self.view),)

    def _width(self, name: str) -> int:
        """Of a block of an array, on the axis of blocks."""
        return self.width // CHUNK_LENGTH if name in _OF_CHUNKS and len(self.view) == 1 else self.width

    def _views(self, names: Sequence[str], tensors: Tensors) -> Views:
        """The arrays of what is kept, as they are looked at."""
        return {
            name: [tensors[name][tensor].reshape(*self._shape(name), *_KEPT[name]) for tensor in self.tensors]
            for name in names
            if name in tensors and self.tensors[0] in tensors[name]
        }

    def _run(self, phase: Phase, names: Sequence[str], views: Views, rows: Rows, step: jax.Array | int) -> Rows:
        """The phase over a block."""
        count, depth = self._chunks(), len(self.lanes)
        inputs: Rows = {}
        for name in names:
            if name in views:
                start, width = step * self._width(name), self._width(name)
                cut = [lax.dynamic_slice_in_dim(view, start, width, self.axis) for view in views[name]]
                chunks = jnp.stack([self._to_rows(name, block).astype(jnp.float32) for block in cut], axis=depth)
                inputs[name] = chunks.reshape(*chunks.shape[:depth], *_rows_shape(name, count * len(cut)))
            elif name in rows:
                inputs[name] = jnp.repeat(rows[name][np.array(self.tensors)], count, axis=0)
        for _ in self.lanes:
            phase = jax.vmap(phase, in_axes=({name: 0 if name in views else None for name in inputs},))
        return phase(inputs)

    def _chunks(self) -> int:
        """Chunks of a tensor in a lane's part of a block."""
        lanes = math.prod(self.view[axis] for axis in self.lanes)
        return self.swept // self.steps // lanes // CHUNK_LENGTH

    def _order(self, name: str) -> tuple[int, ...]:
        """The axes of an array's places, lanes first."""
        return (*self.lanes, *(axis for axis in range(len(self._shape(name))) if axis not in self.lanes))

    def _to_rows(self, name: str, block: jax.Array) -> jax.Array:
        """From the view's axes to lanes and a lane's rows."""
        order = self._order(name)
        lanes = (self.view[axis] for axis in self.lanes)
        turned = block.transpose(*order, *range(len(order), block.ndim))
        return turned.reshape(*lanes, *_rows_shape(name, self._chunks()))

    def _placed(self, name: str, views: list[jax.Array], chunks: jax.Array, step: jax.Array) -> list[jax.Array]:
        """The views with a block's chunks in them."""
        order, depth, width = self._order(name), len(self.lanes), self._width(name)
        rank, back = len(order), sorted(range(len(order)), key=order.__getitem__)
        apart = chunks.reshape(*chunks.shape[:depth], len(views), -1, *chunks.shape[depth + 1 :])
        placed = []
        for place, view in enumerate(views):
            shape = [width if axis == self.axis else view.shape[axis] for axis in order]
            block = lax.index_in_dim(apart, place, depth, keepdims=False).reshape(*shape, *view.shape[rank:])
            block = block.transpose(*back, *range(rank, view.ndim)).astype(view.dtype)
            placed.append(lax.dynamic_update_slice_in_dim(view, block, step * width, self.axis))
        return placed

    def _total(self, values: jax.Array) -> jax.Array:
        """A block's rows, summed for each tensor."""
        depth = len(self.lanes)
        apart = values.reshape(*values.shape[:depth], len(self.tensors), -1, *values.shape[depth + 1 :])
        return jnp.sum(apart, axis=(*range(depth), depth + 1))


SHORTEST = 4096
"""Coordinates of a tensor that a block has at least, so that it is not made of crumbs."""


def plan(tensors: Tensors, block: int) -> tuple[list[Sweep | Pack], list[Sample]]:
    """How all coordinates, and the sampled ones, are worked on, at most about `block` of them at once."""
    shapes = [param.shape for param in tensors["param"].values()]
    alike: dict[tuple[Shape, frozenset[str]], list[int]] = {}
    pieces: list[Piece] = []
    for tensor, shape in enumerate(shapes):
        if math.prod(shape) > block:
            kept = frozenset(name for name, arrays in tensors.items() if tensor in arrays)
            alike.setdefault((shape, kept), []).append(tensor)
        else:
            pieces.append(Piece(tensor, shape))
    sweeps: list[Sweep | Pack] = []
    for (shape, _), left in alike.items():
        while left:
            sweep = _with_lanes(left, shape, block) or _without_lanes(left, shape, block)
            sweeps.append(sweep)
            ends = [Piece(tensor, shape, sweep.swept) for tensor in sweep.tensors]
            pieces.extend(end for end in ends if end.size)
            left = left[len(sweep.tensors) :]
    packs = [Pack(tuple(pieces[i] for i in part)) for part in _parts([piece.chunks for piece in pieces], block)]
    chunks = [len(_sampled(shape)) for shape in shapes]
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
    taken = tuple(tensors[: max(block // max(least, SHORTEST), 1)])
    most = min(max(block // (least * len(taken)), 1), places[axis])
    width = next(width for width in range(most, 0, -1) if places[axis] % width == 0)
    view = (*(size for pair in zip(lanes, places, strict=True) for size in pair), CHUNK_LENGTH)
    kept = tuple(2 * i for i, lane in enumerate(lanes) if lane > 1)
    return Sweep(taken, view, 2 * axis + 1, width, places[axis] // width, kept)
