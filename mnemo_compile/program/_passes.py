"""Passes: pure functions from a Program to one that means the same and is easier to emit."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ._canonical import canonicalise
from ._evaluate import apply, CLOSED_SET
from ._program import Dim, Equation, Literal, Operand, Program, Value
from ._rewrite import Replacement, rewrite, Rewriter

Pass = Callable[[Program], Program]

ELEMENTWISE = frozenset(
    ("neg", "abs", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "tanh", "sin", "cos", "erf", "floor", "sign")
    + ("is_finite", "not", "add", "sub", "mul", "div", "max", "min", "pow", "gt", "ge", "eq", "and", "or")
    + ("select", "convert", "to_bfloat16")
)
"""Primitives that work on each place by itself and spread sizes of one as NumPy does."""

_NUMBERED = re.compile(r"(_\d+)+$")
"""What tells apart values of one name."""

COMMUTATIVE = frozenset({"add", "mul", "max", "min"})


def inline(program: Program) -> Program:
    """Puts what is called in the place of each call."""

    def rule(rewriter: Rewriter, equation: Equation) -> Replacement:
        if equation.body is None:
            return equation
        body = inline(equation.body)
        known: dict[Operand, Operand] = dict(zip(body.inputs, equation.inputs, strict=True))
        known.update((value, rewriter.weight(value.name, body.arrays[value.name])) for value in body.weights)
        for inner in body.equations:
            outputs = tuple(dataclasses.replace(value, name=rewriter.new_name(value.name)) for value in inner.outputs)
            inputs = tuple(known.get(operand, operand) for operand in inner.inputs)
            known.update(zip(inner.outputs, outputs, strict=True))
            rewriter.append(dataclasses.replace(inner, inputs=inputs, outputs=outputs))
        return tuple(known.get(operand, operand) for _, operand in body.outputs)

    return Rewriter(program).run(rule)


def fold(program: Program) -> Program:
    """Computes what depends on weights alone, in float64 and rounded at the end; it becomes a weight `derived.…`."""
    rewriter = Rewriter(program)
    folded: dict[Operand, np.ndarray] = {}

    def known(operand: Operand) -> np.ndarray | None:
        if isinstance(operand, Literal):
            return np.asarray(operand.value, operand.dtype)
        return folded.get(operand, rewriter.arrays.get(operand.name))

    def said(operand: Operand) -> Operand:
        """The operand, as a weight or a literal where it was folded."""
        if operand not in folded or not isinstance(operand, Value):
            return operand
        array = folded[operand].astype(operand.dtype)
        if array.ndim == 0 and operand in of_code:
            return Literal(array.item(), operand.dtype)
        return rewriter.weight(f"derived.{_NUMBERED.sub('', operand.name)}", array)

    of_code: set[Operand] = set()

    def rule(rewriter: Rewriter, equation: Equation) -> Replacement:
        arrays = [known(operand) for operand in equation.inputs]
        output = equation.output
        is_sized = all(isinstance(size, int) for size in output.shape)
        if equation.primitive not in CLOSED_SET or not is_sized or any(array is None for array in arrays):
            return dataclasses.replace(equation, inputs=tuple(map(said, equation.inputs)))
        wide = [_widened(array) for array in arrays if array is not None]
        folded[output] = apply(equation, wide, dtype=np.float64)
        if all(isinstance(operand, Literal) or operand in of_code for operand in equation.inputs):
            of_code.add(output)
        return output

    result = rewriter.run(rule)
    outputs = tuple((name, said(operand)) for name, operand in result.outputs)
    return dataclasses.replace(result, outputs=outputs, weights=tuple(rewriter.weights), arrays=rewriter.arrays)


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array


def dce(program: Program) -> Program:
    """Removes equations, weights and inputs that no output needs."""
    needed = {operand for _, operand in program.outputs}
    kept: list[Equation] = []
    for equation in reversed(program.equations):
        if needed.intersection(equation.outputs):
            kept.append(equation)
            needed.update(equation.inputs)
    sized = any(equation.primitive == "broadcast" for equation in kept)
    weights = tuple(value for value in program.weights if value in needed)
    inputs = tuple(value for value in program.inputs if value in needed)
    return dataclasses.replace(
        program,
        # A broadcast to the number of rows has to see one input that has them.
        inputs=inputs or program.inputs[:sized],
        weights=weights,
        arrays={value.name: program.arrays[value.name] for value in weights},
        equations=tuple(reversed(kept)),
    )


def cse(program: Program) -> Program:
    """Computes once what is computed twice."""
    seen: dict[Any, Value] = {}

    def rule(equation: Equation, makers: Mapping[Value, Equation]) -> Replacement:
        if equation.primitive not in CLOSED_SET:
            return equation
        # As text, -0.0 is not 0.0.
        operands = [(str(operand), operand.dtype) for operand in equation.inputs]
        if equation.primitive in COMMUTATIVE:
            operands.sort()
        key = equation.primitive, tuple(operands), equation.output.shape, tuple(sorted(equation.params.items()))
        first = seen.setdefault(key, equation.output)
        return equation if first == equation.output else first

    return rewrite(program, rule)


def literals_last(program: Program) -> Program:
    """Puts the number of a sum, product, minimum or maximum behind the array."""

    def rule(equation: Equation, makers: Mapping[Value, Equation]) -> Replacement:
        if equation.primitive in COMMUTATIVE and isinstance(equation.inputs[0], Literal):
            return dataclasses.replace(equation, inputs=equation.inputs[::-1])
        return equation

    return rewrite(program, rule)


def spread_implicitly(program: Program) -> Program:
    """Lets elementwise equations spread sizes of one themselves."""

    def rule(equation: Equation, makers: Mapping[Value, Equation]) -> Replacement:
        if equation.primitive not in ELEMENTWISE:
            return equation
        inputs = list(equation.inputs)
        for i, operand in enumerate(inputs):
            maker = makers.get(operand) if isinstance(operand, Value) else None
            if maker is not None and maker.primitive == "broadcast":
                narrow = [*inputs[:i], maker.inputs[0], *inputs[i + 1 :]]
                if _spread([other.shape for other in narrow]) == equation.output.shape:
                    inputs = narrow
        return dataclasses.replace(equation, inputs=tuple(inputs))

    return rewrite(program, rule)


def _spread(shapes: list[tuple[Dim, ...]]) -> tuple[Dim, ...]:
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


def forget_identities(program: Program) -> Program:
    """Removes what changes nothing, and makes one reshape of two."""

    def rule(equation: Equation, makers: Mapping[Value, Equation]) -> Replacement:
        if equation.primitive == "reshape" and isinstance(equation.inputs[0], Value):
            maker = makers.get(equation.inputs[0])
            if maker is not None and maker.primitive == "reshape":
                equation = dataclasses.replace(equation, inputs=maker.inputs)
        operand = equation.inputs[0] if equation.inputs else None
        if operand is None:
            return equation
        same_shape = operand.shape == equation.output.shape
        if equation.primitive in ("reshape", "broadcast") and same_shape:
            return operand
        if equation.primitive == "convert" and isinstance(operand, Value) and operand.dtype == equation.output.dtype:
            return operand
        if equation.primitive == "transpose":
            permutation = equation.params["permutation"]
            if permutation == tuple(range(len(permutation))):
                return operand
        return equation

    return rewrite(program, rule)


def transpose_in_einsum(program: Program) -> Program:
    """Gives an einsum the transposes of its operands, and a transpose of its result, as letters in another order."""
    uses: dict[Operand, int] = {}
    for operand in [o for e in program.equations for o in e.inputs] + [operand for _, operand in program.outputs]:
        uses[operand] = uses.get(operand, 0) + 1

    def rule(equation: Equation, makers: Mapping[Value, Equation]) -> Replacement:
        if equation.primitive == "einsum":
            operands, result = _letters(equation)
            inputs = list(equation.inputs)
            for i, operand in enumerate(inputs):
                maker = makers.get(operand) if isinstance(operand, Value) else None
                if maker is not None and maker.primitive == "transpose":
                    order = maker.params["permutation"]
                    operands[i] = "".join(operands[i][order.index(axis)] for axis in range(len(order)))
                    inputs[i] = maker.inputs[0]
            subscripts = f"{','.join(operands)}->{result}"
            return dataclasses.replace(equation, inputs=tuple(inputs), params={"subscripts": subscripts})
        if equation.primitive == "transpose" and isinstance(equation.inputs[0], Value):
            maker = makers.get(equation.inputs[0])
            if maker is not None and maker.primitive == "einsum" and uses[equation.inputs[0]] == 1:
                operands, result = _letters(maker)
                turned = "".join(result[axis] for axis in equation.params["permutation"])
                subscripts = f"{','.join(operands)}->{turned}"
                return dataclasses.replace(maker, outputs=equation.outputs, params={"subscripts": subscripts})
        return equation

    return rewrite(program, rule)


def _letters(equation: Equation) -> tuple[list[str], str]:
    operands, _, result = equation.params["subscripts"].partition("->")
    return operands.split(","), result


def renumber(program: Program) -> Program:
    """Numbers the values of one name in the order in which they are computed."""
    taken = {value.name for value in (*program.inputs, *program.weights)}
    new: dict[Operand, Value] = {}

    def named(value: Value) -> Value:
        base = _NUMBERED.sub("", value.name)
        name, count = base, 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        new[value] = dataclasses.replace(value, name=name)
        return new[value]

    equations = []
    for equation in program.equations:
        inputs = tuple(new.get(operand, operand) for operand in equation.inputs)
        outputs = tuple(map(named, equation.outputs))
        equations.append(dataclasses.replace(equation, inputs=inputs, outputs=outputs))
    outputs = tuple((name, new.get(operand, operand)) for name, operand in program.outputs)
    return dataclasses.replace(program, equations=tuple(equations), outputs=outputs)


PASSES: dict[str, Pass] = {
    "inline": inline,
    "canonicalise": canonicalise,
    "fold": fold,
    "literals_last": literals_last,
    "forget_identities": forget_identities,
    "spread_implicitly": spread_implicitly,
    "transpose_in_einsum": transpose_in_einsum,
    "cse": cse,
    "dce": dce,
    "renumber": renumber,
}
"""By name, in the order in which they are applied."""


def stages(program: Program) -> Iterator[tuple[str, Program]]:
    """The program after each pass, with the pass's name."""
    for name, apply_pass in PASSES.items():
        program = apply_pass(program)
        yield name, program


def optimise(program: Program) -> Program:
    """Applies every pass."""
    for _, program in stages(program):
        pass
    return program
