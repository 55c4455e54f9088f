from typing import Any

from .._primitives import has_trait, PRIMITIVES, Trait
from .._program import Equation, Program, Value
from .._rewrite import Replacement, rewrite, Rewriter


def cse(program: Program) -> Program:
    """Computes once what is computed twice (common subexpression elimination)."""
    seen: dict[Any, Value] = {}

    def rule(rewriter: Rewriter, equation: Equation) -> Replacement:
        if equation.primitive not in PRIMITIVES:
            return equation
        # As text, -0.0 is not 0.0.
        operands = [(str(operand), operand.dtype) for operand in equation.inputs]
        if has_trait(equation, Trait.COMMUTATIVE):
            operands.sort()
        key = equation.primitive, tuple(operands), equation.output.shape, tuple(sorted(equation.params.items()))
        first = seen.setdefault(key, equation.output)
        return equation if first == equation.output else first

    return rewrite(program, rule)
