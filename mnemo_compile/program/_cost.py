"""What a Program costs: its equations, and its floating-point operations per row."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ._lax import READINGS
from ._primitives import LAX, PRIMITIVES
from ._program import Equation, Program, size_of, Value


class Cost(NamedTuple):
    """What one run of a program over one row costs."""

    equations: int
    operations: int
    """Floating-point operations; a transcendental function, a comparison and a choice count as one."""

    def __add__(self, other: object) -> "Cost":
        assert isinstance(other, Cost)
        return Cost(self.equations + other.equations, self.operations + other.operations)


def cost(program: Program, sizes: Mapping[str, int] = MappingProxyType({})) -> Cost:
    """The cost of a program over one row, calls included. `sizes` says what other free sizes are; else they are 1."""
    total = Cost(0, 0)
    for equation in program.equations:
        inner = equation.body
        total += cost(inner, sizes) if inner is not None else Cost(1, _operations(_sized(equation, sizes)))
    return total


def _sized(equation: Equation, sizes: Mapping[str, int]) -> Equation:
    """The equation with these sizes in the place of free ones."""

    def value(operand: Any) -> Any:
        if not isinstance(operand, Value):
            return operand
        return dataclasses.replace(operand, shape=tuple(sizes.get(str(size), size) for size in operand.shape))

    return dataclasses.replace(
        equation, inputs=tuple(map(value, equation.inputs)), outputs=tuple(map(value, equation.outputs))
    )


def _operations(equation: Equation) -> int:
    name = equation.primitive
    row = READINGS.get(name.removeprefix(LAX)) if name.startswith(LAX) else PRIMITIVES.get(name)
    if row is None:
        return sum(size_of(output.shape) for output in equation.outputs)
    return row.operations(equation)
