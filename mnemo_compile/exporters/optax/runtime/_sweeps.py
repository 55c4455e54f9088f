"""Sweeps: loops over the blocks of large tensors."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._phases import CHUNK_LENGTH
from ._rows import Function, in_halves, is_per_chunk, missing, Rows, rows_shape, SLOTS, Tensors, Views, with_zeros
from ._sharding import shard_like
from ._tensors import chunks_of, Shape


class Sweep(NamedTuple):
    """Updates large tensors of one shape block by block, in place. A block has equally many chunks of each tensor."""

    tensors: tuple[int, ...]
    view: Shape
    """Shape in which the sweep views a tensor. A block is `width` places of `axis` and all places of the other axes."""
    axis: int
    width: int
    steps: int
    lanes: tuple[int, ...] = ()
    """Axes of the view that are batch axes of the arithmetic. Devices that divide one evenly exchange no chunks."""

    @property
    def swept(self) -> int:
        """Coordinates that the sweep covers. Without lanes these are the first coordinates of a tensor."""
        return math.prod(self.view) // self.view[self.axis] * self.width * self.steps

    def summed(self, function: Function, names: Sequence[str], tensors: Tensors, rows: Rows) -> Rows:
        """The phase's rows, summed for each tensor."""
        views = self._views(names, tensors)
        function = with_zeros(function, names, missing(self.tensors, tensors), is_valid=True)

        def block(step: jax.Array | int) -> Rows:
            return {name: self._total(value) for name, value in self._run(function, names, views, rows, step).items()}

        zeros = jax.tree.map(lambda value: jnp.zeros(value.shape, value.dtype), jax.eval_shape(block, 0))
        return lax.fori_loop(0, self.steps, lambda step, sums: jax.tree.map(jnp.add, sums, block(step)), zeros)

    def mapped(self, function: Function, names: Sequence[str], tensors: Tensors, rows: Rows) -> Tensors:
        """The tensors with the phase's outputs in place of the inputs of the same names."""
        tensors = {name: dict(arrays) for name, arrays in tensors.items()}
        views = self._views(list(tensors), tensors)
        written = [name for name in views if name != "param"]
        function = with_zeros(function, names, missing(self.tensors, tensors), is_valid=True)
        if not self.lanes:
            function = in_halves(function)

        def advance(step: jax.Array, state: Views) -> Views:
            outputs = self._run(function, names, views | state, rows, step)
            return {name: self._placed(name, state[name], outputs[name], step) for name in written}

        state = lax.fori_loop(0, self.steps, advance, {name: views[name] for name in written})
        for name in written:
            for tensor, view in zip(self.tensors, state[name], strict=True):
                old = tensors[name][tensor]
                new = view.reshape(old.shape)
                # An array with one axis of chunks may be sharded in another way than the view.
                tensors[name][tensor] = shard_like(new, old) if is_per_chunk(name) else new
        return tensors

    def _shape(self, name: str) -> Shape:
        """The view of an array. An array with an entry per chunk lacks the last axis."""
        if not is_per_chunk(name):
            return self.view
        return self.view[:-1] or (chunks_of(self.view),)

    def _width(self, name: str) -> int:
        """The width of a block of an array, on the axis of blocks."""
        return self.width // CHUNK_LENGTH if is_per_chunk(name) and len(self.view) == 1 else self.width

    def _views(self, names: Sequence[str], tensors: Tensors) -> Views:
        """Views of the inputs' arrays."""
        return {
            name: [tensors[name][tensor].reshape(*self._shape(name), *SLOTS[name].shape) for tensor in self.tensors]
            for name in names
            if name in tensors and self.tensors[0] in tensors[name]
        }

    def _run(self, function: Function, names: Sequence[str], views: Views, rows: Rows, step: jax.Array | int) -> Rows:
        """A phase over a block."""
        count, depth = self._chunks(), len(self.lanes)
        inputs: Rows = {}
        for name in names:
            if name in views:
                start, width = step * self._width(name), self._width(name)
                cut = [lax.dynamic_slice_in_dim(view, start, width, self.axis) for view in views[name]]
                chunks = jnp.stack([self._to_rows(name, block).astype(jnp.float32) for block in cut], axis=depth)
                inputs[name] = chunks.reshape(*chunks.shape[:depth], *rows_shape(name, count * len(cut)))
            elif name in rows:
                inputs[name] = jnp.repeat(rows[name][np.array(self.tensors)], count, axis=0)
        for _ in self.lanes:
            function = jax.vmap(function, in_axes=({name: 0 if name in views else None for name in inputs},))
        return function(inputs)

    def _chunks(self) -> int:
        """Chunks of a tensor in a lane's part of a block."""
        lanes = math.prod(self.view[axis] for axis in self.lanes)
        return self.swept // self.steps // lanes // CHUNK_LENGTH

    def _order(self, name: str) -> tuple[int, ...]:
        """The axes of an array's places, lanes first."""
        return (*self.lanes, *(axis for axis in range(len(self._shape(name))) if axis not in self.lanes))

    def _to_rows(self, name: str, block: jax.Array) -> jax.Array:
        """A block as rows: lanes first, then the rows of a lane."""
        order = self._order(name)
        lanes = (self.view[axis] for axis in self.lanes)
        transposed = block.transpose(*order, *range(len(order), block.ndim))
        return transposed.reshape(*lanes, *rows_shape(name, self._chunks()))

    def _placed(self, name: str, views: list[jax.Array], chunks: jax.Array, step: jax.Array) -> list[jax.Array]:
        """The views with a block's chunks in them."""
        order, depth, width = self._order(name), len(self.lanes), self._width(name)
        rank, inverse = len(order), sorted(range(len(order)), key=order.__getitem__)
        per_tensor = chunks.reshape(*chunks.shape[:depth], len(views), -1, *chunks.shape[depth + 1 :])
        results = []
        for place, view in enumerate(views):
            shape = [width if axis == self.axis else view.shape[axis] for axis in order]
            block = lax.index_in_dim(per_tensor, place, depth, keepdims=False).reshape(*shape, *view.shape[rank:])
            block = block.transpose(*inverse, *range(rank, view.ndim)).astype(view.dtype)
            results.append(lax.dynamic_update_slice_in_dim(view, block, step * width, self.axis))
        return results

    def _total(self, values: jax.Array) -> jax.Array:
        """A block's rows, summed for each tensor."""
        depth = len(self.lanes)
        per_tensor = values.reshape(*values.shape[:depth], len(self.tensors), -1, *values.shape[depth + 1 :])
        return jnp.sum(per_tensor, axis=(*range(depth), depth + 1))
