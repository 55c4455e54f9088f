"""What passes have in common: a walk over a Program's equations that puts others in their place."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._names import Names
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
        self.names = names_of(program)
        self.equations: list[Equation] = []
        self.producers: dict[Operand, Equation] = {}
        """The equation that computes each value so far."""
        self.weights = dict.fromkeys(program.weights)
        self.arrays = dict(program.arrays)
        self._replaced: dict[Operand, Operand] = {}

    def run(self, rule: "Rule") -> Program:
        """The program after a rule was applied to each equation, in order."""
        for equation in self.program.equations:
            self.add(equation, rule)
        return self.result([(name, self.current(operand)) for name, operand in self.program.outputs])

    def add(self, equation: Equation, rule: "Rule") -> None:
        """Applies a rule to an equation of the old program."""
        inputs = tuple(map(self.current, equation.inputs))
        if inputs != equation.inputs:
            equation = dataclasses.replace(equation, inputs=inputs)
        result = rule(self, equation)
        if isinstance(result, Equation):
            self.append(result)
            return
        results = result if isinstance(result, tuple) else (result,)
        self._replaced.update(zip(equation.outputs, results, strict=True))

    def result(self, outputs: Sequence[tuple[str, Operand]]) -> Program:
        """The new program, with these outputs."""
        return dataclasses.replace(
            self.program,
            weights=tuple(self.weights),
            arrays=self.arrays,
            equations=tuple(self.equations),
            outputs=tuple(outputs),
        )

    def current(self, operand: Operand) -> Operand:
        """What stands in the new program for an operand of the old one."""
        return self._replaced.get(operand, operand) if isinstance(operand, Value) else operand

    def producer(self, operand: Operand, *primitives: str) -> Equation | None:
        """The equation that computes the operand, if it is of one of these primitives."""
        producer = self.producers.get(operand) if isinstance(operand, Value) else None
        return producer if producer is not None and producer.primitive in primitives else None

    def sole_producer(self, operand: Operand, *primitives: str, uses: int = 1) -> Equation | None:
        """The same, if the old program reads the operand only here: once, or so many times."""
        return self.producer(operand, *primitives) if self.program.uses.get(operand, 0) == uses else None

    def append(self, equation: Equation) -> None:
        """Adds an equation."""
        self.equations.append(equation)
        self.producers.update((output, equation) for output in equation.outputs)

    def emit(
        self,
        like: Equation,
        primitive: str,
        *inputs: Operand,
        shape: Sequence[Dim],
        dtype: str,
        name: str | None = None,
        **params: Any,
    ) -> Value:
        """Adds an equation with the source line and, unless there is a `name`, the name of another; returns its
        output."""
        output = Value(self.names.fresh(name or like.output.name), tuple(shape), dtype)
        self.append(Equation(primitive, inputs, (output,), params, like.source))
        return output

    def weight(self, name: str, array: np.ndarray) -> Value:
        """A weight of this content. A weight that has the content already is used again."""
        for value in self.weights:
            other = self.arrays[value.name]
            if value.name.split(".")[0] == name.split(".")[0] and other.dtype == array.dtype:
                if np.array_equal(other, array, equal_nan=np.issubdtype(array.dtype, np.floating)):
                    return value
        value = Value(self.names.fresh(name), tuple(array.shape), str(array.dtype))
        self.weights[value] = None
        self.arrays[value.name] = array
        return value


Rule = Callable[[Rewriter, Equation], Replacement]
"""What a pass makes of an equation."""


def rewrite(program: Program, rule: Rule) -> Program:
    """The program after a rule was applied to each equation, in order."""
    return Rewriter(program).run(rule)


def names_of(program: Program) -> Names:
    """The names that are taken in a program, without those inside of calls."""
    values = [*program.inputs, *program.weights, *(o for e in program.equations for o in e.outputs)]
    return Names(value.name for value in values)
