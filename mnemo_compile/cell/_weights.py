"""A cell's arrays by name: the dotted path of each in the module's tree, such as `network.time.kernel.projection`."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np

from ..errors import MnemoError
from ._interface import AbstractCell

CellT = TypeVar("CellT", bound=AbstractCell)


def zeros_of(build: Callable[[], CellT]) -> CellT:
    """The cell that this builds, with zeros for weights. None of its weights is computed."""

    def zeros(leaf: Any) -> Any:
        is_weight = isinstance(leaf, jax.ShapeDtypeStruct)
        return jax.numpy.asarray(np.zeros(leaf.shape, leaf.dtype)) if is_weight else leaf

    return jax.tree.map(zeros, eqx.filter_eval_shape(build))


def weight_name(path: tuple[Any, ...]) -> str:
    """`network.encoder.query` for the key path of that leaf."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def cell_weights(cell: AbstractCell) -> dict[str, np.ndarray]:
    """The arrays of a cell by their dotted names, in the order of the module's fields.

    A weight that is not float32 raises `MnemoError`.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(cell, eqx.is_array))
    weights = {weight_name(path): np.asarray(leaf) for path, leaf in leaves}
    for name, array in weights.items():
        if array.dtype != np.float32:
            raise MnemoError(
                f"the weight {name} of {type(cell).__name__} is {array.dtype}; weights are float32, so convert it "
                "where the cell is built"
            )
    return weights


def with_weights(cell: CellT, weights: Mapping[str, Any]) -> CellT:
    """The cell with these arrays in place of its own.

    **Arguments:**

    - `cell`: a cell of the same configuration.
    - `weights`: its arrays by their dotted names; NumPy arrays, JAX arrays or tracers.

    **Returns:**

    A cell of the same type. Weights with other names, shapes or dtypes than the cell's raise `MnemoError`.
    """
    arrays, rest = eqx.partition(cell, eqx.is_array)
    leaves, tree = jax.tree_util.tree_flatten_with_path(arrays)
    names = [weight_name(path) for path, _ in leaves]
    for word, wrong in (("lack", set(names) - set(weights)), ("also hold", set(weights) - set(names))):
        if wrong:
            raise MnemoError(f"the weights {word} {sorted(wrong)[0]}; they belong to a cell of another configuration")
    for name, (_, leaf) in zip(names, leaves, strict=True):
        weight = weights[name]
        if tuple(weight.shape) != leaf.shape or weight.dtype != leaf.dtype:
            raise MnemoError(
                f"the weight {name} is {weight.dtype}{list(weight.shape)} where this cell's configuration needs "
                f"{leaf.dtype}{list(leaf.shape)}"
            )
    new = [jax.numpy.asarray(weights[name]) for name in names]
    return eqx.combine(jax.tree_util.tree_unflatten(tree, new), rest)
