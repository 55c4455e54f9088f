import dataclasses

from .._primitives import has_trait, Trait
from .._program import Equation, Literal, Program
from .._rewrite import Replacement, rewrite, Rewriter


def literals_last(program: Program) -> Program:
    """Puts the number of a sum, product, minimum or maximum behind the array."""
    return rewrite(program, _rule)


def _rule(rewriter: Rewriter, equation: Equation) -> Replacement:
    if has_trait(equation, Trait.COMMUTATIVE) and isinstance(equation.inputs[0], Literal):
        return dataclasses.replace(equation, inputs=equation.inputs[::-1])
    return equation
