"""The functions of the stablehlo target: phases, the first step's inputs, terms of the network's sums, and the step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from ...program import CompiledCell, Dim
from ..one_tensor import AXES, CHUNKS, COUNTERS, share_outputs, Signature, step_outputs
from ._places import chunk_bound
from ._run import Inputs, run
from ._tensor import dtype, Tensor

Function = Callable[[Inputs], dict[str, jax.Array]]
Specs = dict[str, jax.ShapeDtypeStruct]
"""Shapes and dtypes of a function's inputs, which may have free sizes."""


def phase_function(compiled: CompiledCell, name: str) -> tuple[Function, Specs]:
    """A phase over any number of rows, and of tiles of any size."""
    program = compiled.programs[name]
    names = dict.fromkeys(size for value in program.inputs for size in value.shape if isinstance(size, str))
    sizes: dict[Any, Any] = dict(zip(names, export.symbolic_shape(", ".join(names)), strict=True))
    specs = {
        value.name: jax.ShapeDtypeStruct([sizes.get(size, size) for size in value.shape], value.dtype)
        for value in program.inputs
    }

    def phase(inputs: Inputs) -> dict[str, jax.Array]:
        return {f"next.{key}" if key in specs else key: value for key, value in run(compiled, name, inputs).items()}

    phase.__name__ = name
    return phase, specs


def init_function(signature: Signature) -> tuple[Function, Specs]:
    """Computes the inputs of a tensor's first step."""
    state = signature.compiled.initial_state

    def init(inputs: Inputs) -> dict[str, jax.Array]:
        sizes = _sizes(signature, inputs["param"].shape)
        initial: dict[str, jax.Array] = {
            name: jnp.zeros([sizes.get(size, size) for size in shape], dtype(signature, name))
            for name, shape in signature.memory.items()
        }
        initial.update((f"state.{name}", jnp.asarray(value)) for name, value in state.items())
        return {**initial, **{name: jnp.zeros((), np.int32) for name in COUNTERS}}

    return _named(init, signature), _specs(signature, {"param": AXES})


def share_function(signature: Signature) -> tuple[Function, Specs]:
    """One tensor's terms of the sums over the network's tensors."""

    def share(inputs: Inputs) -> dict[str, jax.Array]:
        return share_outputs(Tensor(signature, inputs))

    return _named(share, signature), _specs(signature, signature.share_inputs)


def step_function(signature: Signature) -> tuple[Function, Specs]:
    """The whole step of one tensor."""

    def update(inputs: Inputs) -> dict[str, jax.Array]:
        return step_outputs(Tensor(signature, inputs))

    return _named(update, signature), _specs(signature, signature.inputs)


def _named(function: Function, signature: Signature) -> Function:
    """The function under its name for this kind of tensors."""
    function.__name__ = signature.path(function.__name__)
    return function


def _sizes(signature: Signature, shape: Sequence[Any]) -> dict[Any, Any]:
    """The free sizes of a tensor of this shape by name."""
    batch, rows, columns = shape
    bound = chunk_bound((batch, rows, columns), signature.compiled.chunk_length)
    return {**dict(zip(AXES, shape, strict=True)), CHUNKS: bound}


def _specs(signature: Signature, shapes: Mapping[str, Sequence[Dim]]) -> Specs:
    """Shapes and dtypes of inputs, from their shapes in the names of free sizes."""
    sizes = _sizes(signature, export.symbolic_shape(", ".join(AXES)))
    return {
        name: jax.ShapeDtypeStruct([sizes.get(size, size) for size in shape], dtype(signature, name))
        for name, shape in shapes.items()
    }
