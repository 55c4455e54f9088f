import dataclasses

from .._program import Equation, Operand, Program
from .._rewrite import Replacement, Rewriter


def inline(program: Program) -> Program:
    """Puts what is called in the place of each call."""
    return Rewriter(program).run(_rule)


def _rule(rewriter: Rewriter, equation: Equation) -> Replacement:
    if equation.body is None:
        return equation
    body = inline(equation.body)
    env: dict[Operand, Operand] = dict(zip(body.inputs, equation.inputs, strict=True))
    env.update((value, rewriter.weight(value.name, body.arrays[value.name])) for value in body.weights)
    for inner in body.equations:
        outputs = tuple(dataclasses.replace(value, name=rewriter.names.fresh(value.name)) for value in inner.outputs)
        inputs = tuple(env.get(operand, operand) for operand in inner.inputs)
        env.update(zip(inner.outputs, outputs, strict=True))
        rewriter.append(dataclasses.replace(inner, inputs=inputs, outputs=outputs))
    return tuple(env.get(operand, operand) for _, operand in body.outputs)
