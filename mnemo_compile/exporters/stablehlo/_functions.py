"""The functions of the stablehlo target: phases, the first step's inputs, terms of the network's sums, and the step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from ...program import CompiledCell, Dim
from ..one_tensor import COUNTERS, memory, share_inputs, share_outputs, step_inputs, step_outputs
from ._run import Inputs, run
from ._tensor import chunk_count, dtype, Tensor

Function = Callable[[Inputs], dict[str, jax.Array]]
Specs = dict[str, jax.ShapeDtypeStruct]
"""Shapes and dtypes of a function's inputs, which may have free sizes."""


def phase_function(compiled: CompiledCell, name: str) -> tuple[Function, Specs]:
    """A phase over any number of rows."""
    program = compiled.programs[name]
    (rows,) = export.symbolic_shape("rows")
    specs = {
        value.name: jax.ShapeDtypeStruct([rows if isinstance(size, str) else size for size in value.shape], value.dtype)
        for value in program.inputs
    }

    def phase(inputs: Inputs) -> dict[str, jax.Array]:
        return {f"next.{key}" if key in specs else key: value for key, value in run(compiled, name, inputs).items()}

    phase.__name__ = name
    return phase, specs


def init_function(compiled: CompiledCell) -> tuple[Function, Specs]:
    """Computes the inputs of a tensor's first step."""

    def init(inputs: Inputs) -> dict[str, jax.Array]:
        count = inputs["param"].shape[0]
        sizes = {"N": count, "C": chunk_count(compiled, count)}
        initial: dict[str, jax.Array] = {
            name: jnp.zeros((sizes[str(size)], *shape), dtype(compiled, name))
            for name, (size, *shape) in memory(compiled).items()
        }
        initial.update((f"state.{name}", jnp.asarray(value)) for name, value in compiled.initial_state.items())
        return {**initial, **{name: jnp.zeros((), np.int32) for name in COUNTERS}}

    return init, _specs(compiled, {"param": ("N",)})


def share_function(compiled: CompiledCell) -> tuple[Function, Specs]:
    """One tensor's terms of the sums over the network's tensors."""

    def share(inputs: Inputs) -> dict[str, jax.Array]:
        return share_outputs(Tensor(compiled, inputs))

    return share, _specs(compiled, share_inputs(compiled))


def step_function(compiled: CompiledCell) -> tuple[Function, Specs]:
    """The whole step of one tensor."""

    def update(inputs: Inputs) -> dict[str, jax.Array]:
        return step_outputs(Tensor(compiled, inputs))

    return update, _specs(compiled, step_inputs(compiled))


def _specs(compiled: CompiledCell, shapes: Mapping[str, Sequence[Dim]]) -> Specs:
    """Shapes and dtypes of inputs, from their shapes in N and C."""
    (n,) = export.symbolic_shape("N")
    sizes: dict[Any, Any] = {"N": n, "C": chunk_count(compiled, n)}
    return {
        name: jax.ShapeDtypeStruct([sizes.get(size, size) for size in shape], dtype(compiled, name))
        for name, shape in shapes.items()
    }
