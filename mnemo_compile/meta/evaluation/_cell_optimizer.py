"""A cell as an optimizer of optax."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ...cell import AbstractCell
from ...step import Layout, reference
from ..tasks import Params


class _State(NamedTuple):
    optimizer: reference.OptimizerState


def as_optax(
    cell: AbstractCell,
    steps: int | Int[Array, ""],
    names: Sequence[str] | None = None,
    lr: float | Float[Array, ""] = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """The reference step of a cell that knows the number of steps; 0 stands for an unknown number.

    It computes what every export of the cell computes. Roles follow from the names of the parameters, or from their
    shapes if there are no names.
    """

    def layout(params: Params) -> Layout:
        return reference.layout_of(cell, [p.shape for p in params], names)

    def init(params: Any) -> Any:
        return _State(reference.init(cell, layout(params)))

    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, Any]:
        packing = layout(params)
        total = jnp.asarray(steps, jnp.float32)
        before, grad = reference.pack(packing, params), reference.pack(packing, updates)
        after, optimizer = reference.step(cell, packing, before, grad, state.optimizer, lr=lr, total_steps=total)
        return reference.unpack(packing, after - before), _State(optimizer)

    return optax.GradientTransformationExtraArgs(init, update)
