"""Where the places of chunks and tiles lie in a tensor whose sizes are free."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import core
from jaxtyping import Array, Bool, Float, Int


class Places(NamedTuple):
    """Parts of a tensor, each padded with zeros to the same shape."""

    inside: Bool[Array, "parts ..."]
    """Whether a place of a part holds a coordinate of the tensor."""
    coordinate: Int[Array, "parts ..."]
    """The coordinate that it holds, 0 if none."""
    place: Int[Array, "batch rows columns"]
    """The place of each coordinate among those of all parts."""

    def cut(self, array: Float[Array, "batch rows columns ..."]) -> Float[Array, "parts ..."]:
        """The parts of an array."""
        inner = array.shape[3:]
        values = array.reshape(-1, *inner)[self.coordinate]
        return jnp.where(self.inside.reshape(*self.inside.shape, *(1,) * len(inner)), values, 0)

    def join(self, parts: Float[Array, "parts ..."]) -> Float[Array, "batch rows columns ..."]:
        """The array that has these parts."""
        return parts.reshape(-1, *parts.shape[self.inside.ndim :])[self.place]


class Chunks(NamedTuple):
    """The chunks of a tensor. Chunks restart after each run of coordinates."""

    places: Places
    run: Int[Array, ""]
    number: Int[Array, ""]
    """Chunks that the tensor has. Those of `places` after them are padding."""

    @property
    def exists(self) -> Bool[Array, " chunks"]:
        """Whether a chunk is one of the tensor's."""
        return self.places.inside[:, 0]


def chunk_bound(sizes: Sequence[Any], length: int) -> Any:
    """At least as many chunks as a tensor of these sizes has, as many if the columns fill a chunk."""
    batch, rows, columns = sizes
    return batch * rows * _divided_up(columns, length)


def chunks_of(sizes: Sequence[Any], length: int) -> Chunks:
    """The chunks of a tensor of batch × rows × columns."""
    batch, rows, columns = map(jnp.asarray, sizes)
    area = rows * columns
    run = jnp.where(columns >= length, columns, jnp.where(area >= length, area, batch * area))
    per_run = _divided_up(run, length)
    count = batch * area // run * per_run
    chunk = jnp.arange(chunk_bound(sizes, length))[:, None]
    place_in_run = chunk % per_run * length + jnp.arange(length)
    inside = (place_in_run < run) & (chunk < count)
    coordinate = jnp.where(inside, chunk // per_run * run + place_in_run, 0)
    flat = _coordinates(sizes)
    place = flat // run * per_run * length + flat % run
    return Chunks(Places(inside, coordinate, place), run, count)


class Tiles(NamedTuple):
    """The tiles of a batch of matrices, as `Tiling` says. A tile that is taller than wide is turned."""

    places: Places
    side: Int[Array, " tiles"]
    """The longer side of each tile, without padding."""


def tiles_of(sizes: Sequence[Any], largest: int) -> Tiles:
    """The tiles of a tensor of batch × rows × columns, whose sides are at most `largest`."""
    batch, rows, columns = sizes
    down, across = _divided_up(rows, largest), _divided_up(columns, largest)
    height, width = _divided_up(rows, down), _divided_up(columns, across)
    # JAX does not see that a quotient is at least 1.
    short_side, long_side = (
        core.max_dim(side, 1) for side in (core.min_dim(height, width), core.max_dim(height, width))
    )
    number = jnp.arange(batch * down * across)[:, None, None]
    short, long = jnp.arange(short_side)[:, None], jnp.arange(long_side)
    down, across, height, width, rows, columns = map(jnp.asarray, (down, across, height, width, rows, columns))
    is_turned = height > width
    top, left = number // across % down * height, number % across * width
    row = top + jnp.where(is_turned, long, short)
    column = left + jnp.where(is_turned, short, long)
    inside = (row < rows) & (column < columns)
    coordinate = jnp.where(inside, (number // (down * across) * rows + row) * columns + column, 0)
    side = jnp.maximum(jnp.minimum(height, rows - top), jnp.minimum(width, columns - left)).reshape(-1)
    return Tiles(Places(inside, coordinate, _places_in_tiles(sizes, down, across, height, width)), side)


def _places_in_tiles(sizes: Sequence[Any], down: Array, across: Array, height: Array, width: Array) -> Array:
    """The place of each coordinate among those of all tiles."""
    matrix, row, column = _indices(sizes)
    tile = (matrix * down + row // height) * across + column // width
    y, x = row % height, column % width
    return tile * height * width + jnp.where(height > width, x * height + y, y * width + x)


def _coordinates(sizes: Sequence[Any]) -> Int[Array, "batch rows columns"]:
    matrix, row, column = _indices(sizes)
    return (matrix * jnp.asarray(sizes[1]) + row) * jnp.asarray(sizes[2]) + column


def _indices(sizes: Sequence[Any]) -> list[jax.Array]:
    """The matrix, the row and the column of each coordinate."""
    return [jax.lax.broadcasted_iota(jnp.int32, sizes, axis) for axis in range(3)]


def _divided_up(size: Any, by: Any) -> Any:
    """size / by, rounded up."""
    return (size + by - 1) // by
