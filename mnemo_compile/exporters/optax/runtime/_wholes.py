"""Wholes: large tensors in their own shape, for arithmetic that is the same for each coordinate."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ._rows import composed, for_arithmetic, Function, Rows, Tensors


class Whole(NamedTuple):
    """All of a large tensor at once. A compiler makes one loop of it, in place, so no workspace is needed."""

    tensor: int

    def mapped(self, functions: Sequence[Function], names: Sequence[str], tensors: Tensors, rows: Rows) -> Tensors:
        """The tensors with the outputs in place of the inputs of the same names."""
        tensors = {name: dict(arrays) for name, arrays in tensors.items()}
        inputs = {name: self._input(name, tensors) if name in tensors else self._row(rows[name]) for name in names}
        for name, value in composed(functions)(inputs).items():
            if self.tensor in tensors[name]:
                old = tensors[name][self.tensor]
                tensors[name][self.tensor] = value.astype(old.dtype).reshape(old.shape)
        return tensors

    def _input(self, name: str, tensors: Tensors) -> jax.Array:
        """An array with two axes or more, as a row has them, or a zero if the tensor lacks the slot."""
        if self.tensor not in tensors[name]:
            return jnp.zeros((1, 1), jnp.float32)
        array = for_arithmetic(name, tensors[name][self.tensor])
        return array.reshape((*(1 for _ in range(2 - array.ndim)), *array.shape))

    def _row(self, values: jax.Array) -> jax.Array:
        return values[self.tensor : self.tensor + 1]
