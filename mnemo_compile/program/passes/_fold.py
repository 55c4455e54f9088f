import dataclasses

import numpy as np

from .._evaluate import apply
from .._primitives import CLOSED_SET
from .._program import Equation, is_sized, Literal, Operand, Program, Value
from .._rewrite import Replacement, Rewriter
from ._renumber import base_name


def fold(program: Program) -> Program:
    """Computes what depends on weights alone, in float64; the result is rounded once and is a weight `derived.…`."""
    folding = _Folding(program)
    result = folding.rewriter.run(folding.rule)
    outputs = [(name, folding.rounded(operand)) for name, operand in result.outputs]
    return folding.rewriter.result(outputs)


class _Folding:
    """What is known so far."""

    def __init__(self, program: Program):
        self.rewriter = Rewriter(program)
        self._arrays: dict[Operand, np.ndarray] = {}
        """In float64, where nothing was rounded yet."""
        self._of_code: set[Operand] = set()
        """Those of them that depend on no weight."""

    def rule(self, rewriter: Rewriter, equation: Equation) -> Replacement:
        arrays = [self._content(operand) for operand in equation.inputs]
        output = equation.output
        is_unknown = any(array is None for array in arrays)
        if equation.primitive not in CLOSED_SET or not is_sized(output.shape) or is_unknown:
            return dataclasses.replace(equation, inputs=tuple(map(self.rounded, equation.inputs)))
        wide = [_widened(array) for array in arrays if array is not None]
        self._arrays[output] = apply(equation, wide, dtype=np.float64)
        if all(isinstance(operand, Literal) or operand in self._of_code for operand in equation.inputs):
            self._of_code.add(output)
        return output

    def rounded(self, operand: Operand) -> Operand:
        """The operand, as a weight or a literal if it was computed here."""
        if operand not in self._arrays or not isinstance(operand, Value):
            return operand
        array = self._arrays[operand].astype(operand.dtype)
        if array.ndim == 0 and operand in self._of_code:
            return Literal(array.item(), operand.dtype)
        return self.rewriter.weight(f"derived.{base_name(operand.name)}", array)

    def _content(self, operand: Operand) -> np.ndarray | None:
        if isinstance(operand, Literal):
            return np.asarray(operand.value, operand.dtype)
        return self._arrays.get(operand, self.rewriter.arrays.get(operand.name))


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array
