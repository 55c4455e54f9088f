"""A phase's program as a function of JAX."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ...program import CompiledCell, Literal, Operand, unsupported
from ._primitives import TABLE

Inputs = Mapping[str, jax.Array]


def run(compiled: CompiledCell, phase: str, inputs: Inputs) -> dict[str, jax.Array]:
    """The outputs of a phase. Inputs that it does not need are ignored."""
    program = compiled.programs[phase]
    env: dict[Operand, jax.Array] = {value: inputs[value.name] for value in program.inputs}
    env.update((value, jnp.asarray(compiled.weights[value.name])) for value in program.weights)
    # Each is an int or an expression of sizes.
    sizes: dict[Any, Any] = {
        size: inputs[value.name].shape[axis]
        for value in program.inputs
        for axis, size in enumerate(value.shape)
        if isinstance(size, str)
    }

    def read(operand: Operand) -> jax.Array:
        if isinstance(operand, Literal):
            return jnp.asarray(operand.value, operand.dtype)
        return env[operand]

    for equation in program.equations:
        if equation.primitive not in TABLE:
            raise unsupported(equation, "stablehlo", TABLE)
        shape = tuple(sizes.get(size, size) for size in equation.output.shape)
        env[equation.output] = TABLE[equation.primitive](equation, list(map(read, equation.inputs)), shape)
    return {name: read(operand) for name, operand in program.outputs}
