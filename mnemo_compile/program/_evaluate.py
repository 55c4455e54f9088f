"""What a Program means: an interpreter over NumPy, independent of JAX and of every target."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._primitives import Array, PRIMITIVES, unsupported
from ._program import Equation, Literal, Operand, Program


def evaluate(program: Program, inputs: Mapping[str, np.ndarray], dtype: Any = None) -> dict[str, np.ndarray]:
    """Runs a program.

    **Arguments:**

    - `program`: of primitives in `PRIMITIVES` and calls.
    - `inputs`: an array for each of its inputs; those with a free size agree in it.
    - `dtype`: of all floating-point arithmetic. By default each value has the dtype that the program says.

    **Returns:**

    An array for each output. A primitive that has no row raises `MnemoError`.
    """
    free = {
        size: length
        for value in program.inputs
        for size, length in zip(value.shape, inputs[value.name].shape, strict=True)
        # A single row may stand for many.
        if isinstance(size, str) and length != 1
    }
    env: dict[Operand, Array] = {value: _cast(inputs[value.name], value.dtype, dtype) for value in program.inputs}
    env.update((value, _cast(program.arrays[value.name], value.dtype, dtype)) for value in program.weights)

    def read(operand: Operand) -> Array:
        if isinstance(operand, Literal):
            return _cast(operand.value, operand.dtype, dtype)
        return env[operand]

    with np.errstate(all="ignore"):
        for equation in program.equations:
            arrays = [read(operand) for operand in equation.inputs]
            if equation.body is not None:
                names = [value.name for value in equation.body.inputs]
                results = evaluate(equation.body, dict(zip(names, arrays, strict=True)), dtype)
                env.update(zip(equation.outputs, results.values(), strict=True))
            else:
                env[equation.output] = apply(equation, arrays, free, dtype)
    return {name: np.asarray(read(operand)) for name, operand in program.outputs}


def apply(
    equation: Equation, arrays: Sequence[Array], free: Mapping[str, int] | None = None, dtype: Any = None
) -> np.ndarray:
    """The output of one equation. Free sizes are 1 unless `free` names them."""
    if equation.primitive not in PRIMITIVES:
        raise unsupported(equation, "the interpreter", PRIMITIVES)
    output = equation.output
    shape = tuple((free or {}).get(size, 1) if isinstance(size, str) else size for size in output.shape)
    with np.errstate(all="ignore"):
        return _cast(PRIMITIVES[equation.primitive].meaning(equation, arrays, shape), output.dtype, dtype)


def _cast(array: Any, of_program: str, dtype: Any) -> np.ndarray:
    is_float = of_program.startswith("float")
    return np.asarray(array, dtype if is_float and dtype is not None else of_program)
