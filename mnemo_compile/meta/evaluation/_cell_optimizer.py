"""A cell as an optimizer of optax."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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


def identity_of(cell: AbstractCell, digest: str) -> str:
    """The cell's digest, and the sizes of a few updates, which change where its code computes something else."""
    shapes = {
        "embedding.weight": (24, 8),
        "body.weight": (12, 20),
        "body.bias": (20,),
        "conv.weight": (3, 3, 4, 6),
        "head.weight": (8, 10),
    }
    random = np.random.default_rng(0)
    params, *grads = (
        [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes.values()] for _ in range(4)
    )
    optimizer = as_optax(cell, jnp.int32(10), list(shapes), jnp.float32(1))
    update, state, sizes = jax.jit(optimizer.update), optimizer.init(params), []
    for grad in grads:
        updates, state = update(grad, state, params)
        params = [param + step for param, step in zip(params, updates, strict=True)]
        sizes += [float(jnp.sqrt(jnp.mean(jnp.square(step)))) for step in updates]
    return f"{digest} {','.join(f'{size:.4g}' for size in sizes)}"
