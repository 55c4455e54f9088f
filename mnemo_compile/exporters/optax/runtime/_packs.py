"""Packs: small tensors whose rows are the rows of one array."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._forms import AbstractForm
from ._rows import composed, for_arithmetic, Function, in_halves, missing, Rows, SLOTS, Tensors, with_zeros
from ._sharding import shard_like
from ._sums import sums


class Piece(NamedTuple):
    """All rows of a small tensor."""

    tensor: int
    form: AbstractForm

    @property
    def height(self) -> int:
        """The number of rows."""
        return self.form.count(self.form.view)

    def take(self, name: str, tensors: Tensors) -> jax.Array:
        """The rows of an input. They are zero if the tensor lacks the array."""
        form, arrays = self.form, tensors[name]
        if self.tensor not in arrays:
            return jnp.zeros((self.height, *form.row_shape(name)), jnp.float32)
        sizes = form.array_sizes(name, form.view)
        view = arrays[self.tensor].reshape(*sizes, *SLOTS[name].shape)
        return form.to_rows(name, for_arithmetic(name, view))

    def put(self, name: str, array: jax.Array, rows: jax.Array) -> jax.Array:
        """An array like this one, with these rows."""
        new = self.form.to_block(name, rows, self.form.view).astype(array.dtype)
        # Without this the partitioner would replicate the array on every device.
        return shard_like(new.reshape(array.shape), array)


class Pack(NamedTuple):
    """Pieces whose rows are the rows of one array."""

    pieces: tuple[Piece, ...]

    @property
    def tensors(self) -> tuple[int, ...]:
        return tuple(piece.tensor for piece in self.pieces)

    def summed(self, function: Function, names: Sequence[str], tensors: Tensors, rows: Rows) -> Rows:
        """The outputs' rows, summed for each piece."""
        owner = np.repeat(np.arange(len(self.pieces)), [piece.height for piece in self.pieces])
        return sums(function(self._inputs(names, tensors, rows)), owner)

    def mapped(self, functions: Sequence[Function], names: Sequence[str], tensors: Tensors, rows: Rows) -> Tensors:
        """The tensors with the outputs in place of the inputs of the same names."""
        tensors = {name: dict(arrays) for name, arrays in tensors.items()}
        form = self.pieces[0].form
        ends = np.cumsum([piece.height for piece in self.pieces])[:-1]
        absent = {name: form.row_shape(name) for name in missing(self.tensors, tensors) if name in names}
        inputs = self._inputs([name for name in names if name not in absent], tensors, rows)
        for name, values in in_halves(with_zeros(composed(functions), absent))(inputs).items():
            for piece, part in zip(self.pieces, jnp.split(values, ends), strict=True):
                if piece.tensor in tensors[name]:
                    tensors[name][piece.tensor] = piece.put(name, tensors[name][piece.tensor], part)
        return tensors

    def _inputs(self, names: Sequence[str], tensors: Tensors, rows: Rows) -> Rows:
        owner = np.repeat(self.tensors, [piece.height for piece in self.pieces])
        constants = [piece.form.constants(piece.form.view) for piece in self.pieces]
        inputs: Rows = {}
        for name in names:
            if name in tensors:
                inputs[name] = jnp.concatenate([piece.take(name, tensors) for piece in self.pieces])
            elif name in rows:
                inputs[name] = rows[name][owner]
            else:
                inputs[name] = jnp.concatenate([each[name] for each in constants])
        return inputs
