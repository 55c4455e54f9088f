"""Turns a Program into the text of a Python function, for torch and optax."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from ...program import (
    Dim,
    Equation,
    has_trait,
    is_of_chunks,
    Literal,
    Names,
    Operand,
    Program,
    Trait,
    unsupported,
    Value,
)

Renderer = Callable[[Equation, list[str], list[bool]], str]
"""Maps an equation, the texts of its inputs, and whether it may overwrite each input, to an expression."""

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "gt": ">", "ge": ">=", "eq": "==", "and": "&", "or": "|"}

_LIKE = re.compile(r"\blike\.")
"""A use of `like`, the array whose dtype and device the generated arrays get."""

_WIDTH = 72
"""Longest expression that becomes part of another one."""


def infix(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    """`a * b`, in brackets."""
    return f"({inputs[0]} {_INFIX[equation.primitive]} {inputs[1]})"


def number(literal: Literal) -> str:
    """The shortest text that gives this number in its own dtype."""
    text = str(np.dtype(literal.dtype).type(literal.value))
    return text if text.lstrip("-") not in ("inf", "nan") else f'float("{text}")'


def sizes(shape: tuple[Dim, ...], free: str | None = None) -> str:
    """A shape as a tuple. A free size stands by its name, or is `free` if it is the only one."""
    is_only = sum(isinstance(size, str) for size in shape) == 1
    inner = ", ".join(free if isinstance(size, str) and is_only and free else str(size) for size in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def render(program: Program, table: Mapping[str, Renderer], target: str, array: str) -> str:
    """The source of a phase as a Python function.

    **Arguments:**

    - `program`: the phase.
    - `table`: an expression for each primitive.
    - `target`: the name of the target, for error messages.
    - `array`: the type of an array, as text.

    **Returns:**

    Source of `def <phase>(weights, inputs) -> dict`. A short
    expression that is used once becomes part of the expression that uses it.
    """
    texts: dict[Operand, str] = {value: f'weights["{value.name}"]' for value in program.weights}
    spare: set[Operand] = set()
    names = Names(("weights", "inputs", "rows", "height", "width", "like", target, "jnp", *table))
    lines: list[str] = []
    for value in program.inputs:
        texts[value] = names.fresh(_identifier(value))
        lines.append(f'{texts[value]} = inputs["{value.name}"]')
    for size in _named_sizes(program):
        inputs = [value for value in program.inputs if size in value.shape]
        sized = next(filter(is_of_chunks, inputs), inputs[0])
        lines.append(f"{size} = {texts[sized]}.shape[{sized.shape.index(size)}]")
    for equation in program.equations:
        if equation.primitive not in table:
            raise unsupported(equation, target, table)
        inputs = [number(o) if isinstance(o, Literal) else texts[o] for o in equation.inputs]
        overwritable = [o in spare and _is_like(o, equation.output) for o in equation.inputs]
        text = table[equation.primitive](equation, inputs, overwritable)
        is_used_once = program.uses.get(equation.output, 0) == 1
        is_view = has_trait(equation, Trait.VIEW) or len(equation.inputs) == 1 and equation.primitive == "einsum"
        if is_used_once and not is_view:
            spare.add(equation.output)
        if is_used_once and len(text) <= _WIDTH:
            texts[equation.output] = text
        else:
            texts[equation.output] = names.fresh(_identifier(equation.output))
            lines.append(f"{texts[equation.output]} = {bare(text)}")
    if any(_LIKE.search(line) for line in (*lines, *texts.values())):
        floating = (texts[value] for value in program.inputs if value.dtype.startswith("float"))
        lines.insert(len(program.inputs), f"like = {next(floating, 'next(iter(weights.values()))')}")
    lines.append("return {")
    for name, operand in program.outputs:
        lines.append(f'    "{name}": {number(operand) if isinstance(operand, Literal) else bare(texts[operand])},')
    lines.append("}")
    body = "\n".join(f"    {line}" for line in lines)
    rows = f"Mapping[str, {array}]"
    return f"def {program.name}(weights: {rows}, inputs: {rows}) -> dict[str, {array}]:\n{body}\n"


def _named_sizes(program: Program) -> list[str]:
    """The free sizes that the text names: those of new arrays, and of results that have several."""
    shapes = [e.output.shape for e in program.equations if e.primitive == "broadcast"]
    shapes += [e.output.shape for e in program.equations if e.primitive == "reshape" and _free(e.output.shape)[1:]]
    return list(dict.fromkeys(size for shape in shapes for size in _free(shape)))


def _free(shape: tuple[Dim, ...]) -> list[str]:
    return [size for size in shape if isinstance(size, str)]


def _is_like(operand: Operand, output: Value) -> bool:
    return operand.shape == output.shape and operand.dtype == output.dtype


def _identifier(value: Value) -> str:
    return value.name.replace(".", "_")


def bare(text: str) -> str:
    """The text without brackets around the whole of it."""
    if not text.startswith("(") or not text.endswith(")"):
        return text
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[1:-1] if place == len(text) - 1 else text
    return text
