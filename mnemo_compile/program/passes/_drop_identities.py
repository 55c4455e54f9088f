import dataclasses

from .._program import Equation, Program
from .._rewrite import Replacement, rewrite, Rewriter


def drop_identities(program: Program) -> Program:
    """Removes equations that change nothing, and makes one reshape of two."""
    return rewrite(program, _rule)


def _rule(rewriter: Rewriter, equation: Equation) -> Replacement:
    if equation.primitive == "reshape":
        producer = rewriter.producer(equation.inputs[0], "reshape")
        if producer is not None:
            equation = dataclasses.replace(equation, inputs=producer.inputs)
    return equation.inputs[0] if _is_identity(equation) else equation


def _is_identity(equation: Equation) -> bool:
    match equation.primitive:
        case "reshape" | "broadcast":
            return equation.inputs[0].shape == equation.output.shape
        case "convert":
            return equation.inputs[0].dtype == equation.output.dtype
        case "transpose":
            permutation = equation.params["permutation"]
            return permutation == tuple(range(len(permutation)))
    return False
