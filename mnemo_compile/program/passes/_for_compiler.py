from .._program import Equation, Program
from .._rewrite import Replacement, Rewriter
from ._fuse import apply_rule, index_rule, renewed


def for_compiler(program: Program) -> Program:
    """Makes `index` of slices of one place, and `rational_tanh` of tanh, which is arithmetic like the rest.

    What else belongs together, a compiler fuses better by itself.
    """
    return apply_rule(apply_rule(program, index_rule), _rational)


def _rational(rewriter: Rewriter, equation: Equation) -> Replacement:
    return renewed(equation, "rational_tanh", *equation.inputs) if equation.primitive == "tanh" else equation
