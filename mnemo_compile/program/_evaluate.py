"""What a Program means: an interpreter over NumPy, independent of JAX and of every target."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ..errors import MnemoError
from ._program import Dim, Equation, Literal, Operand, Program

Array = Any
Rule = Callable[[Equation, Sequence[Array], tuple[int, ...]], Array]
"""From an equation, its inputs and the shape of its output to the output."""


def evaluate(program: Program, inputs: Mapping[str, np.ndarray], dtype: Any = None) -> dict[str, np.ndarray]:
    """Runs a program.

    **Arguments:**

    - `program`: of primitives in [`CLOSED_SET`][] and calls.
    - `inputs`: an array for each of its inputs; those with a free size agree in it.
    - `dtype`: of all floating-point arithmetic; as the program says where it is not given.

    **Returns:**

    An array for each output. A primitive outside the closed set raises [`MnemoError`][].
    """
    free = next(
        (inputs[v.name].shape[axis] for v in program.inputs for axis, size in enumerate(v.shape) if size == "rows"), 1
    )
    known: dict[Operand, Array] = {value: _cast(inputs[value.name], value.dtype, dtype) for value in program.inputs}
    known.update((value, _cast(program.arrays[value.name], value.dtype, dtype)) for value in program.weights)

    def read(operand: Operand) -> Array:
        if isinstance(operand, Literal):
            return _cast(operand.value, operand.dtype, dtype)
        return known[operand]

    with np.errstate(all="ignore"):
        for equation in program.equations:
            arrays = [read(operand) for operand in equation.inputs]
            if equation.body is not None:
                names = [value.name for value in equation.body.inputs]
                results = evaluate(equation.body, dict(zip(names, arrays, strict=True)), dtype)
                known.update(zip(equation.outputs, results.values(), strict=True))
            else:
                known[equation.output] = apply(equation, arrays, free, dtype)
    return {name: np.asarray(read(operand)) for name, operand in program.outputs}


def apply(equation: Equation, arrays: Sequence[Array], free: int = 1, dtype: Any = None) -> np.ndarray:
    """The output of one equation; `free` is the number of rows."""
    if equation.primitive not in CLOSED_SET:
        raise MnemoError(
            f"the primitive {equation.primitive} ({equation.source}) is not among {', '.join(sorted(CLOSED_SET))}"
        )
    output = equation.output
    shape = tuple(free if isinstance(size, str) else size for size in output.shape)
    with np.errstate(all="ignore"):
        return _cast(CLOSED_SET[equation.primitive](equation, arrays, shape), output.dtype, dtype)


def _cast(array: Any, of_program: str, dtype: Any) -> np.ndarray:
    is_float = of_program.startswith("float")
    return np.asarray(array, dtype if is_float and dtype is not None else of_program)


def _plain(function: Callable[..., Array]) -> Rule:
    return lambda equation, arrays, shape: function(*arrays)


def _reduce(equation: Equation, arrays: Sequence[Array], shape: tuple[int, ...]) -> Array:
    reduce = {"sum": np.sum, "max": np.max, "min": np.min}[equation.params["kind"]]
    return reduce(arrays[0], axis=equation.params["axes"])


def _slice(equation: Equation, arrays: Sequence[Array], shape: tuple[int, ...]) -> Array:
    axis, start, stop = (equation.params[key] for key in ("axis", "start", "stop"))
    return arrays[0][(slice(None),) * axis + (slice(start, stop),)]


_erf = np.vectorize(math.erf, otypes=[np.float64])

CLOSED_SET: dict[str, Rule] = {
    "neg": _plain(np.negative),
    "abs": _plain(np.abs),
    "exp": _plain(np.exp),
    "log": _plain(np.log),
    "log1p": _plain(np.log1p),
    "expm1": _plain(np.expm1),
    "sqrt": _plain(np.sqrt),
    "rsqrt": _plain(lambda x: 1 / np.sqrt(x)),
    "tanh": _plain(np.tanh),
    "sin": _plain(np.sin),
    "cos": _plain(np.cos),
    "erf": _plain(_erf),
    "floor": _plain(np.floor),
    "sign": _plain(np.sign),
    "is_finite": _plain(np.isfinite),
    "not": _plain(np.logical_not),
    "add": _plain(np.add),
    "sub": _plain(np.subtract),
    "mul": _plain(np.multiply),
    "div": _plain(np.divide),
    "max": _plain(np.maximum),
    "min": _plain(np.minimum),
    "pow": _plain(np.power),
    "gt": _plain(np.greater),
    "ge": _plain(np.greater_equal),
    "eq": _plain(np.equal),
    "and": _plain(np.logical_and),
    "or": _plain(np.logical_or),
    "select": _plain(np.where),
    "convert": _plain(lambda x: x),
    # To the nearest number of bfloat16.
    "to_bfloat16": _plain(lambda x: np.asarray(x, ml_dtypes.bfloat16)),
    "reduce": _reduce,
    "reshape": lambda equation, arrays, shape: np.reshape(arrays[0], shape),
    "broadcast": lambda equation, arrays, shape: np.broadcast_to(arrays[0], shape),
    "transpose": lambda equation, arrays, shape: np.transpose(arrays[0], equation.params["permutation"]),
    "concatenate": lambda equation, arrays, shape: np.concatenate(arrays, axis=equation.params["axis"]),
    "slice": _slice,
    "einsum": lambda equation, arrays, shape: np.einsum(equation.params["subscripts"], *arrays),
}
"""The closed set: every primitive that a target may meet, and what it means."""


def size_of(shape: Sequence[Dim]) -> int:
    """Places in an array of one row."""
    return math.prod(1 if isinstance(size, str) else size for size in shape)
