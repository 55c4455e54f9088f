"""What a Program costs: its equations, and its floating-point operations a row."""

import math
from typing import NamedTuple

from ._evaluate import size_of
from ._program import Equation, Program

_FREE = frozenset(
    ("reshape", "squeeze", "expand_dims", "broadcast", "broadcast_in_dim", "transpose", "concatenate", "stack", "slice")
    + ("split", "gather", "convert", "convert_element_type", "stop_gradient", "copy", "optimization_barrier")
)
"""Primitives that move numbers and compute none."""


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
    outputs = sum(size_of(output.shape) for output in equation.outputs)
    if equation.primitive in _FREE:
        return 0
    if equation.primitive in ("reduce", "reduce_sum", "reduce_max", "reduce_min"):
        return size_of(equation.inputs[0].shape)
    if equation.primitive == "einsum":
        operands, _, result = equation.params["subscripts"].partition("->")
        sizes = {
            letter: size_of([size])
            for letters, operand in zip(operands.split(","), equation.inputs, strict=True)
            for letter, size in zip(letters, operand.shape, strict=True)
        }
        return 2 * math.prod(sizes.values())
    if equation.primitive == "dot_general":
        summed = [equation.inputs[0].shape[axis] for axis in equation.params["contract"][0]]
        return 2 * outputs * size_of(summed)
    return outputs
