"""A cell as an optimizer of optax."""

from typing import Any, NamedTuple

import optax
from jaxtyping import Array, Float

from ...cell import AbstractCell
from ...step import Layout, reference
from ..tasks import Params


class _State(NamedTuple):
    optimizer: reference.OptimizerState


def as_optax(
    cell: AbstractCell, steps: int, lr: float | Float[Array, ""] = 1.0
) -> optax.GradientTransformationExtraArgs:
    """The reference step of a cell that knows the number of steps.

    It computes what every export of the cell computes.
    """

    def layout(params: Params) -> Layout:
        return Layout(tuple(p.shape for p in params), cell.chunk_length, cell.sample_chunks)

    def init(params: Any) -> Any:
        return _State(reference.init(cell, layout(params)))

    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, Any]:
        packing = layout(params)
        before, grad = reference.pack(packing, params), reference.pack(packing, updates)
        after, optimizer = reference.step(cell, packing, before, grad, state.optimizer, lr=lr, total_steps=float(steps))
        return reference.unpack(packing, after - before), _State(optimizer)

    return optax.GradientTransformationExtraArgs(init, update)
