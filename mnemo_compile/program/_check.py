"""What every Program must be, whatever pass has made it."""

from collections.abc import Iterator

from ..errors import MnemoError
from ._primitives import LAX, PRIMITIVES
from ._program import Equation, Literal, Operand, Program, Value


def check(program: Program, after: str) -> Program:
    """The program itself, if it is well formed.

    Each value is assigned once, before it is used; weights have arrays of their shape and dtype; each equation has the
    parameters that its primitive's row names, and a result of the shape and dtype that follow from its inputs. Of the
    primitives of JAX that nothing has said in the closed set yet, only the names are checked.

    **Arguments:**

    - `program`: any.
    - `after`: the pass that made it.

    **Returns:**

    The program. One that is not well formed raises `MnemoError`, which names the pass, the equation and its line:
    the pass has an error.
    """
    for what, problem in _problems(program):
        raise MnemoError(f"the pass {after} makes an invalid program of {program.name}: {what}: {problem}")
    return program


def _problems(program: Program) -> Iterator[tuple[str, str]]:
    """What is wrong, and where."""
    defined: dict[str, Value] = {}
    for value in (*program.inputs, *program.weights):
        if value.name in defined:
            yield str(value), "it is an input or a weight twice"
        defined[value.name] = value
    for value in program.weights:
        array = program.arrays.get(value.name)
        if array is None or array.shape != value.shape or array.dtype != value.dtype:
            yield f"{value}: {value.type}", "the weight has no array of this type"
    for equation in program.equations:
        problem = _problem(equation, defined)
        if problem is not None:
            yield f"{equation} ({equation.source})", problem
        if equation.body is not None:
            yield from _problems(equation.body)
        defined.update((output.name, output) for output in equation.outputs)
    for name, operand in program.outputs:
        if not _is_defined(operand, defined):
            yield f"output {name}", f"{operand} is not defined"


def _problem(equation: Equation, defined: dict[str, Value]) -> str | None:
    for operand in equation.inputs:
        if not _is_defined(operand, defined):
            return f"{operand} is not defined before"
    for output in equation.outputs:
        if output.name in defined:
            return f"{output} is assigned twice"
    if equation.body is not None or equation.primitive.startswith(LAX):
        return None
    try:
        return _mistyped(equation)
    except (ValueError, LookupError, TypeError) as error:
        return str(error)


def _is_defined(operand: Operand, defined: dict[str, Value]) -> bool:
    return isinstance(operand, Literal) or defined.get(operand.name) == operand


def _mistyped(equation: Equation) -> str | None:
    """What does not fit the row of the equation's primitive."""
    row = PRIMITIVES.get(equation.primitive)
    if row is None:
        return "there is no such primitive"
    if row.arity not in (None, len(equation.inputs)):
        return f"{row.arity} inputs are needed"
    if equation.params.keys() != set(row.params):
        return f"the parameters are {', '.join(row.params) or 'none'}"
    (output,) = equation.outputs
    shape, dtype = row.shape(equation), row.dtype(equation)
    if (shape, dtype) != (output.shape, output.dtype):
        return f"the result is {Value('', shape, dtype).type}"
    return None
