import dataclasses

from .._program import Equation, Literal, Operand, Program
from .._rewrite import Replacement, rewrite, Rewriter
from ._dce import dce

_VIEWS = ("reshape", "broadcast", "transpose")


def taken(program: Program) -> Program:
    """The phase in a step that is taken, where whoever runs it has looked at `finite` before. Its name is `taken_…`."""
    return dataclasses.replace(dce(rewrite(program, _rule)), name=f"taken_{program.name}")


def _rule(rewriter: Rewriter, equation: Equation) -> Replacement:
    if equation.primitive != "select" or not _says_finite(rewriter, equation.inputs[0]):
        return equation
    choice = equation.inputs[1]
    return choice if choice.shape == equation.output.shape else equation


def _says_finite(rewriter: Rewriter, operand: Operand) -> bool:
    """Whether the operand is finite > 0, in any shape."""
    view = rewriter.producer(operand, *_VIEWS)
    if view is not None:
        return _says_finite(rewriter, view.inputs[0])
    compared = rewriter.producer(operand, "gt")
    if compared is None:
        return False
    left, right = compared.inputs
    return getattr(left, "name", None) == "finite" and isinstance(right, Literal) and right.value == 0
