"""What a Program costs: its equations, and its floating-point operations per row."""

from typing import NamedTuple

from ._lax import READINGS
from ._primitives import LAX, PRIMITIVES
from ._program import Equation, Program, size_of


class Cost(NamedTuple):
    """What one run of a program over one row costs."""

    equations: int
    operations: int
    """Floating-point operations; a transcendental function, a comparison and a choice count as one."""

    def __add__(self, other: object) -> "Cost":
        assert isinstance(other, Cost)
        return Cost(self.equations + other.equations, self.operations + other.operations)


def cost(program: Program) -> Cost:
    """The cost of a program over one row, calls included."""
    total = Cost(0, 0)
    for equation in program.equations:
        total += cost(equation.body) if equation.body is not None else Cost(1, _operations(equation))
    return total


def _operations(equation: Equation) -> int:
    name = equation.primitive
    row = READINGS.get(name.removeprefix(LAX)) if name.startswith(LAX) else PRIMITIVES.get(name)
    if row is None:
        return sum(size_of(output.shape) for output in equation.outputs)
    return row.operations(equation)
