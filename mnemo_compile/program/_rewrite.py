"""What passes share: walking a Program's equations and putting others in their place."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ._program import Dim, Equation, Operand, Program, Value

Replacement = Equation | Operand | tuple[Operand, ...]
"""One equation, or what stands for the result, or for each of the results."""


class Rewriter:
    """A program that is being made from another.

    **Arguments:**

    - `program`: the one it is made from.
    """

    def __init__(self, program: Program):
        self.program = program
        self.equations: list[Equation] = []
        self.makers: dict[Value, Equation] = {}
        """The equation that computes each value."""
        self.weights = dict.fromkeys(program.weights)
        self.arrays = dict(program.arrays)
        self._replaced: dict[Value, Operand] = {}
        self._taken = {value.name for value in (*program.inputs, *program.weights)}
        self._taken.update(output.name for equation in program.equations for output in equation.outputs)

    def run(self, rule: "Callable[[Rewriter, Equation], Replacement]") -> Program:
        """The program after a rule was applied to each equation, in order."""
        for equation in self.program.equations:
            renamed = dataclasses.replace(equation, inputs=tuple(map(self.current, equation.inputs)))
            result = rule(self, renamed)
            if isinstance(result, Equation):
                self.append(result)
                continue
            results = result if isinstance(result, tuple) else (result,)
            self._replaced.update(zip(equation.outputs, results, strict=True))
        return dataclasses.replace(
            self.program,
            weights=tuple(self.weights),
            arrays=self.arrays,
            equations=tuple(self.equations),
            outputs=tuple((name, self.current(operand)) for name, operand in self.program.outputs),
        )

    def current(self, operand: Operand) -> Operand:
        """What stands for an operand of the old program in the new one."""
        return self._replaced.get(operand, operand) if isinstance(operand, Value) else operand

    def append(self, equation: Equation) -> None:
        """Adds an equation."""
        self.equations.append(equation)
        self.makers.update((output, equation) for output in equation.outputs)

    def emit(
        self, like: Equation, primitive: str, *inputs: Operand, shape: Sequence[Dim], dtype: str, **params: Any
    ) -> Value:
        """Adds an equation under the name and the source line of another; returns its output."""
        output = Value(self.new_name(like.output.name), tuple(shape), dtype)
        self.append(Equation(primitive, inputs, (output,), params, like.source))
        return output

    def weight(self, name: str, array: np.ndarray) -> Value:
        """A weight of this content; one that is there already is shared."""
        for value in self.weights:
            other = self.arrays[value.name]
            if value.name.split(".")[0] == name.split(".")[0] and other.dtype == array.dtype:
                if np.array_equal(other, array, equal_nan=np.issubdtype(array.dtype, np.floating)):
                    return value
        value = Value(self.new_name(name), tuple(array.shape), str(array.dtype))
        self.weights[value] = None
        self.arrays[value.name] = array
        return value

    def new_name(self, base: str) -> str:
        """A name that is not taken."""
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


def rewrite(program: Program, rule: Callable[[Equation, Mapping[Value, Equation]], Replacement]) -> Program:
    """Applies a rule that sees an equation and what made its inputs."""
    return Rewriter(program).run(lambda rewriter, equation: rule(equation, rewriter.makers))
