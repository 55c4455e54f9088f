import math

from .._primitives import has_trait, Trait
from .._program import Equation, Operand, Program


def is_pointwise(program: Program) -> bool:
    """Whether one loop over the coordinates computes all of it, but for sums that are taken of each row."""
    return all(_is_in_loop(equation, program) for equation in program.equations)


def _is_in_loop(equation: Equation, program: Program) -> bool:
    if not any("rows" in operand.shape for operand in equation.inputs):
        return True
    if equation.primitive == "reduce":
        return _is_of_rows(equation, program)
    return has_trait(equation, Trait.ELEMENTWISE) or has_trait(equation, Trait.VIEW)


def _is_of_rows(equation: Equation, program: Program) -> bool:
    """Whether what is reduced ends as numbers of a row, and is not repeated over coordinates again."""
    reached: set[Operand] = {equation.output}
    for other in program.equations:
        if reached.intersection(other.inputs):
            if math.prod(s for s in other.output.shape if s != "rows" and isinstance(s, int)) > 1:
                return False
            reached.update(other.outputs)
    return True
