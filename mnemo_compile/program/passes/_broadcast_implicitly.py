import dataclasses

from .._primitives import broadcast_shapes, has_trait, Trait
from .._program import Equation, Program
from .._rewrite import Replacement, rewrite, Rewriter


def broadcast_implicitly(program: Program) -> Program:
    """Lets elementwise equations broadcast sizes of one themselves."""
    return rewrite(program, _rule)


def _rule(rewriter: Rewriter, equation: Equation) -> Replacement:
    if not has_trait(equation, Trait.ELEMENTWISE):
        return equation
    inputs = list(equation.inputs)
    for i, operand in enumerate(inputs):
        producer = rewriter.producer(operand, "broadcast")
        if producer is not None:
            narrow = [*inputs[:i], producer.inputs[0], *inputs[i + 1 :]]
            if broadcast_shapes(other.shape for other in narrow) == equation.output.shape:
                inputs = narrow
    return dataclasses.replace(equation, inputs=tuple(inputs))
