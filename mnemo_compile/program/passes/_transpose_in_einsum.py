import dataclasses

from .._primitives import einsum_letters
from .._program import Equation, Program
from .._rewrite import Replacement, rewrite, Rewriter


def transpose_in_einsum(program: Program) -> Program:
    """Makes the transposes before and behind an einsum its own, as letters in another order."""
    return rewrite(program, _rule)


def _rule(rewriter: Rewriter, equation: Equation) -> Replacement:
    if equation.primitive == "einsum":
        return _with_operands_transposed(rewriter, equation)
    if equation.primitive == "transpose":
        einsum = rewriter.sole_producer(equation.inputs[0], "einsum")
        if einsum is not None:
            operands, result = einsum_letters(einsum)
            permuted = "".join(result[axis] for axis in equation.params["permutation"])
            return _with_letters(dataclasses.replace(einsum, outputs=equation.outputs), operands, permuted)
    return equation


def _with_operands_transposed(rewriter: Rewriter, equation: Equation) -> Equation:
    operands, result = einsum_letters(equation)
    inputs = list(equation.inputs)
    for i, operand in enumerate(inputs):
        transpose = rewriter.producer(operand, "transpose")
        if transpose is not None:
            order = transpose.params["permutation"]
            operands[i] = "".join(operands[i][order.index(axis)] for axis in range(len(order)))
            inputs[i] = transpose.inputs[0]
    return _with_letters(dataclasses.replace(equation, inputs=tuple(inputs)), operands, result)


def _with_letters(equation: Equation, operands: list[str], result: str) -> Equation:
    return dataclasses.replace(equation, params={"subscripts": f"{','.join(operands)}->{result}"})
