"""A Program as the text of a Python function; what torch and optax have in common."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from ...errors import MnemoError
from ...program import Dim, Equation, Literal, Operand, Program, Value

Renderer = Callable[[Equation, list[str], list[bool]], str]
"""From an equation, the texts of its inputs, and whether it may overwrite each, to an expression."""

_VIEWS = frozenset({"reshape", "broadcast", "transpose", "slice", "index", "convert"})
"""Primitives whose result may share memory with their input."""

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "gt": ">", "ge": ">=", "eq": "==", "and": "&", "or": "|"}

_CHUNKED = ("param", "grad", "valid", "memory")
"""Inputs that hold a row for each chunk; in a phase over chunks, others may hold one row for all of them."""

_LIKE = re.compile(r"\blike\.")
"""What a table says of dtype and device: those of the floating-point inputs."""

_WIDTH = 72


def infix(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    """`a * b`, in brackets."""
    return f"({inputs[0]} {INFIX[equation.primitive]} {inputs[1]})"


def number(literal: Literal) -> str:
    """The shortest text that gives this number in its own dtype."""
    text = str(np.dtype(literal.dtype).type(literal.value))
    return text if text.lstrip("-") not in ("inf", "nan") else f'float("{text}")'


def sizes(shape: tuple[Dim, ...], free: str) -> str:
    """A shape as a tuple, with `free` for a free size."""
    inner = ", ".join(free if isinstance(size, str) else str(size) for size in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def unsupported(equation: Equation, target: str, table: Mapping[str, object]) -> MnemoError:
    """The refusal of a primitive that is not in a target's table."""
    return MnemoError(
        f"the primitive {equation.primitive} ({equation.source}) cannot be said in {target}; say it with: "
        f"{', '.join(sorted(table))}"
    )


def render(program: Program, table: Mapping[str, Renderer], target: str, array: str) -> str:
    """The function of a phase.

    **Arguments:**

    - `program`: the phase.
    - `table`: an expression for each primitive.
    - `target`: its name, for a refusal.
    - `array`: the type of an array, as text.

    **Returns:**

    Source of `def <phase>(weights, inputs) -> dict`. A value that is used once becomes part of its
    user's line while that stays short.
    """
    uses: dict[Operand, int] = {}
    for operand in [o for e in program.equations for o in e.inputs] + [operand for _, operand in program.outputs]:
        uses[operand] = uses.get(operand, 0) + 1
    texts: dict[Operand, str] = {value: f'weights["{value.name}"]' for value in program.weights}
    spare: set[Operand] = set()
    taken = {"weights", "inputs", "rows", "like", target, "jnp", *table}
    lines: list[str] = []
    for value in program.inputs:
        texts[value] = _identifier(value, taken)
        lines.append(f'{texts[value]} = inputs["{value.name}"]')
    if any(e.primitive == "broadcast" and not _is_sized(e.output.shape) for e in program.equations):
        free = [value for value in program.inputs if not _is_sized(value.shape)]
        sized = next(filter(is_chunked, free), free[0])
        lines.append(f"rows = {texts[sized]}.shape[{sized.shape.index('rows')}]")
    for equation in program.equations:
        if equation.primitive not in table:
            raise unsupported(equation, target, table)
        inputs = [number(o) if isinstance(o, Literal) else texts[o] for o in equation.inputs]
        overwritable = [o in spare and _is_like(o, equation.output) for o in equation.inputs]
        text = table[equation.primitive](equation, inputs, overwritable)
        is_view = equation.primitive in _VIEWS or len(equation.inputs) == 1 and equation.primitive == "einsum"
        if uses.get(equation.output, 0) == 1 and not is_view:
            spare.add(equation.output)
        if uses.get(equation.output, 0) == 1 and len(text) <= _WIDTH:
            texts[equation.output] = text
        else:
            texts[equation.output] = _identifier(equation.output, taken)
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


def is_chunked(value: Value) -> bool:
    """Whether an input of a phase over chunks holds a row for each chunk."""
    return value.name.partition(".")[0] in _CHUNKED


def _is_like(operand: Operand, output: Value) -> bool:
    return operand.shape == output.shape and operand.dtype == output.dtype


def _is_sized(shape: tuple[Dim, ...]) -> bool:
    return all(isinstance(size, int) for size in shape)


def _identifier(value: Value, taken: set[str]) -> str:
    base = value.name.replace(".", "_")
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    taken.add(name)
    return name


def bare(text: str) -> str:
    """Without brackets that enclose all of it."""
    if not text.startswith("(") or not text.endswith(")"):
        return text
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[1:-1] if place == len(text) - 1 else text
    return text
