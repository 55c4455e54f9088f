"""Sweeps: loops over the blocks of large tensors."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._blocks import Blocks
from ._devices import device
from ._forms import AbstractForm
from ._rows import chained, composed, for_arithmetic, Function, in_halves, missing, Rows, SLOTS, Tensors, with_zeros
from ._sharding import shard_like
from ._sums import total
from ._tensors import Shape
from ._tiles import Tiles

Views = dict[str, list[jax.Array]]
"""For each input over parts, the arrays of the tensors of one sweep, in the shape of the view, or blocks of them."""


class Sweep(NamedTuple):
    """Works on a region of large tensors of one shape block by block. A block has a part of each tensor."""

    tensors: tuple[int, ...]
    form: AbstractForm
    region: tuple[Blocks, ...]
    """The blocks along each axis of the form's view. A block has all lanes."""

    def summed(self, function: Function, names: Sequence[str], tensors: Tensors, rows: Rows) -> Rows:
        """The outputs' rows, summed for each tensor.

        The rows of each tensor are an array of their own, because a compiler would copy all coordinates to join them.
        """
        views = self._views(names, tensors)
        function = with_zeros(function, self._absent(names, tensors))

        def totals(blocks: Views) -> Rows:
            each: list[Rows] = []
            for place, tensor in enumerate(self.tensors):
                own = {name: [arrays[place]] for name, arrays in blocks.items()}
                each.append(function(self._inputs(names, own, rows, (tensor,))))
            return {name: total(jnp.stack([outputs[name] for outputs in each])) for name in each[0]}

        def block(step: jax.Array | int) -> Rows:
            totals_of_lanes = self._over_lanes(totals, stacked=True)(self._cut(views, step))
            lanes = tuple(range(len(self.form.lanes)))
            return {name: jnp.sum(value, axis=lanes) for name, value in totals_of_lanes.items()}

        if self._steps == 1:
            return block(0)
        zeros = jax.tree.map(lambda value: jnp.zeros(value.shape, value.dtype), jax.eval_shape(block, 0))
        return lax.fori_loop(0, self._steps, lambda step, sums: jax.tree.map(jnp.add, sums, block(step)), zeros)

    def mapped(self, functions: Sequence[Function], names: Sequence[str], tensors: Tensors, rows: Rows) -> Tensors:
        """The tensors with the outputs in place of the inputs of the same names."""
        tensors = {name: dict(arrays) for name, arrays in tensors.items()}
        views = self._views(list(tensors), tensors)
        written = [name for name in views if name != "param"]
        zeros = functools.partial(with_zeros, absent=self._absent(names, tensors))

        def together(blocks: Views) -> Views:
            outputs = in_halves(zeros(composed(functions)))(self._inputs(names, blocks, rows, self.tensors))
            parts = {name: jnp.split(outputs[name], len(self.tensors)) for name in written}
            return {name: [self.form.to_block(name, part, self._sizes) for part in own] for name, own in parts.items()}

        def one_by_one(blocks: Views) -> Views:
            *before, last = functions
            inner = zeros(chained(before))(self._inputs(names, blocks, rows, self.tensors))
            each = self._each(zeros(last), names, blocks, {name: rows[name] for name in names if name in rows}, inner)
            return {name: [outputs[name] for outputs in each] for name in written}

        # A compiler computes no product of matrices again, and halves have twice as many launches.
        blocks_of = one_by_one if device().whole and isinstance(self.form, Tiles) else together

        def advance(step: jax.Array, state: Views) -> Views:
            blocks = self._over_lanes(blocks_of)(self._cut(views | state, step))
            return {name: self._placed(name, state[name], blocks[name], step) for name in written}

        state = lax.fori_loop(0, self._steps, advance, {name: views[name] for name in written})
        for name in written:
            for tensor, view in zip(self.tensors, state[name], strict=True):
                old = tensors[name][tensor]
                # The loop may have sharded the view in another way.
                tensors[name][tensor] = shard_like(view.reshape(old.shape), old)
        return tensors

    @property
    def _steps(self) -> int:
        return math.prod(blocks.steps for blocks in self.region)

    @property
    def _sizes(self) -> Shape:
        """The sizes of a lane's block."""
        return tuple(blocks.width for axis, blocks in enumerate(self.region) if axis not in self.form.lanes)

    def _absent(self, names: Sequence[str], tensors: Tensors) -> dict[str, Shape]:
        absent = missing(self.tensors, tensors)
        return {name: self.form.row_shape(name) for name in names if name in absent}

    def _views(self, names: Sequence[str], tensors: Tensors) -> Views:
        """Views of the inputs' arrays."""
        return {
            name: [
                tensors[name][tensor].reshape(*self.form.array_sizes(name, self.form.view), *SLOTS[name].shape)
                for tensor in self.tensors
            ]
            for name in names
            if name in tensors and self.tensors[0] in tensors[name]
        }

    def _inputs(self, names: Sequence[str], blocks: Views, rows: Rows, members: Sequence[int]) -> Rows:
        """The rows of these tensors in a lane's block: those of the first one, then those of the next one."""
        count, constants = self.form.count(self._sizes), self.form.constants(self._sizes)
        inputs: Rows = {}
        for name in names:
            if name in blocks:
                parts = [self.form.to_rows(name, for_arithmetic(name, block)) for block in blocks[name]]
                inputs[name] = jnp.concatenate(parts)
            elif name in rows:
                inputs[name] = jnp.repeat(rows[name][np.array(members)], count, axis=0)
            elif name in constants:
                inputs[name] = jnp.concatenate([constants[name]] * len(members))
        return inputs

    def _each(self, function: Function, names: Sequence[str], blocks: Views, rows: Rows, inner: Rows) -> list[Rows]:
        """A function of each tensor's rows in a lane's block. Its outputs are blocks again.

        Where the rows of a tensor lie is no constant to a compiler. So kernels of different tensors have the same text,
        and it compiles one of them.

        **Arguments:**

        - `rows`: inputs with a row per tensor.
        - `inner`: inputs with the rows of all tensors in the block.
        """
        count, constants = self.form.count(self._sizes), self.form.constants(self._sizes)

        @jax.jit
        def one(blocks: Rows, rows: Rows, inner: Rows, start: jax.Array, tensor: jax.Array) -> Rows:
            inputs = {name: constants[name] for name in names if name in constants}
            for name, block in blocks.items():
                inputs[name] = self.form.to_rows(name, for_arithmetic(name, block))
            for name, values in rows.items():
                row = lax.dynamic_slice_in_dim(values, tensor, 1)
                inputs[name] = jnp.broadcast_to(row, (count, *row.shape[1:]))
            for name, values in inner.items():
                inputs[name] = lax.dynamic_slice_in_dim(values, start, count)
            outputs = function(inputs).items()
            return {name: self.form.to_block(name, value, self._sizes) for name, value in outputs}

        numbers = [(np.int32(place * count), np.int32(tensor)) for place, tensor in enumerate(self.tensors)]
        return [
            one({name: arrays[place] for name, arrays in blocks.items()}, rows, inner, *where)
            for place, where in enumerate(lax.optimization_barrier(numbers))
        ]

    def _over_lanes(self, function: Callable[[Views], Any], stacked: bool = False) -> Callable[[Views], Any]:
        """The function of blocks with lanes. Its outputs have the lanes where the blocks have them, or in front."""
        for depth, axis in reversed(list(enumerate(self.form.lanes))):
            function = jax.vmap(function, in_axes=axis - depth, out_axes=0 if stacked else axis - depth)
        return function

    def _cut(self, views: Views, step: jax.Array | int) -> Views:
        """A block of each view."""
        blocks: Views = {}
        for name, arrays in views.items():
            widths = (*self.form.array_sizes(name, [blocks.width for blocks in self.region]), *SLOTS[name].shape)
            starts = self._starts(name, step)
            blocks[name] = [
                view if view.shape == widths else lax.dynamic_slice(view, starts, widths) for view in arrays
            ]
        return blocks

    def _placed(self, name: str, views: list[jax.Array], blocks: list[jax.Array], step: jax.Array) -> list[jax.Array]:
        """The views with a block in each of them."""
        starts = self._starts(name, step)
        return [
            lax.dynamic_update_slice(view, block.astype(view.dtype), starts)
            for view, block in zip(views, blocks, strict=True)
        ]

    def _starts(self, name: str, step: jax.Array | int) -> list[jax.Array | int]:
        """Where a block starts in an input's arrays. The last axis advances first."""
        first = self.form.array_sizes(name, [blocks.start for blocks in self.region])
        widths = self.form.array_sizes(name, [blocks.width for blocks in self.region])
        starts: list[jax.Array | int] = [0 for _ in SLOTS[name].shape]
        for start, width, blocks in reversed(list(zip(first, widths, self.region, strict=True))):
            starts.insert(0, start + step % blocks.steps * width if blocks.steps > 1 else start)
            step = step // blocks.steps
        return starts
