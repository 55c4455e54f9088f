from .._lax import Expansion, READINGS
from .._primitives import LAX
from .._program import Equation, Program
from .._rewrite import Replacement, rewrite, Rewriter


def canonicalise(program: Program) -> Program:
    """Says the primitives of JAX in the closed set.

    There is one contraction (`einsum`), one reduction (`reduce`), one way to cut (`slice`, along one axis), to shape
    (`reshape`), to repeat (`broadcast`, of sizes of one) and to compare (`gt`, `ge`, `eq`). A primitive that cannot be
    said stays as it is, and the targets refuse it by name.
    """
    return rewrite(program, _rule)


def _rule(rewriter: Rewriter, equation: Equation) -> Replacement:
    name = equation.primitive.removeprefix(LAX)
    if name == equation.primitive or name not in READINGS:
        return equation
    result = READINGS[name].lower(Expansion(rewriter, equation))
    return equation if result is None else result
