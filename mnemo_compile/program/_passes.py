"""Passes: pure functions from a Program to one that means the same and is easier to emit."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ._program import Dim, Equation, Literal, Operand, Program, Value

Pass = Callable[[Program], Program]

ELEMENTWISE = frozenset(
    ("neg", "abs", "exp", "log", "sqrt", "rsqrt", "tanh", "cos")
    + ("add", "sub", "mul", "div", "max", "min", "gt", "select", "convert")
)
"""Primitives that work on each place by itself and spread sizes of one as NumPy does."""

COMMUTATIVE = frozenset({"add", "mul", "max", "min"})


def _rewrite(program: Program, rule: Callable[[Equation, Mapping[Value, Equation]], Equation | Operand]) -> Program:
    """Applies a rule to each equation, in order. It gives an equation, or an operand that stands for the result."""
    replaced: dict[Value, Operand] = {}
    makers: dict[Value, Equation] = {}
    equations: list[Equation] = []

    def current(operand: Operand) -> Operand:
        return replaced.get(operand, operand) if isinstance(operand, Value) else operand

    for equation in program.equations:
        renamed = dataclasses.replace(equation, inputs=tuple(map(current, equation.inputs)))
        result = rule(renamed, makers)
        if isinstance(result, Equation):
            makers.update((output, result) for output in result.outputs)
            equations.append(result)
        else:
            replaced[equation.output] = result
    outputs = tuple((name, current(operand)) for name, operand in program.outputs)
    return dataclasses.replace(program, equations=tuple(equations), outputs=outputs)


def dce(program: Program) -> Program:
    """Removes equations, weights and inputs that no output needs."""
    needed = {operand for _, operand in program.outputs}
    kept: list[Equation] = []
    for equation in reversed(program.equations):
        if needed.intersection(equation.outputs):
            kept.append(equation)
            needed.update(equation.inputs)
    sized = any(equation.primitive == "broadcast" for equation in kept)
    inputs = tuple(value for value in program.inputs if value in needed)
    return dataclasses.replace(
        program,
        # A broadcast to the number of rows has to see one input that has them.
        inputs=inputs or program.inputs[:sized],
        weights=tuple(value for value in program.weights if value in needed),
        equations=tuple(reversed(kept)),
    )


def cse(program: Program) -> Program:
    """Computes once what is computed twice."""
    seen: dict[Any, Value] = {}

    def rule(equation: Equation, makers: Mapping[Value, Equation]) -> Equation | Operand:
        if len(equation.outputs) != 1:
            return equation
        operands = equation.inputs
        if equation.primitive in COMMUTATIVE:
            operands = tuple(sorted(operands, key=str))
        try:
            return seen.setdefault(_key(equation, operands), equation.output)
        except TypeError:
            return equation

    def only_repeats(equation: Equation, makers: Mapping[Value, Equation]) -> Equation | Operand:
        first = rule(equation, makers)
        return equation if first is equation or first == equation.output else first

    return _rewrite(program, only_repeats)


def _key(equation: Equation, operands: tuple[Operand, ...]) -> Any:
    return equation.primitive, operands, equation.output.shape, tuple(sorted(equation.params.items()))


def literals_last(program: Program) -> Program:
    """Puts the number of a sum, product, minimum or maximum behind the array."""

    def rule(equation: Equation, makers: Mapping[Value, Equation]) -> Equation | Operand:
        if equation.primitive in COMMUTATIVE and isinstance(equation.inputs[0], Literal):
            return dataclasses.replace(equation, inputs=equation.inputs[::-1])
        return equation

    return _rewrite(program, rule)


def spread_implicitly(program: Program) -> Program:
    """Lets elementwise equations spread sizes of one themselves."""

    def rule(equation: Equation, makers: Mapping[Value, Equation]) -> Equation | Operand:
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

    return _rewrite(program, rule)


def _spread(shapes: list[tuple[Dim, ...]]) -> tuple[Dim, ...]:
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


def forget_identities(program: Program) -> Program:
    """Removes what changes nothing, and makes one reshape of two."""

    def rule(equation: Equation, makers: Mapping[Value, Equation]) -> Equation | Operand:
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

    return _rewrite(program, rule)


def transpose_in_einsum(program: Program) -> Program:
    """Gives an einsum the transposes of its operands, and a transpose of its result, as letters in another order."""
    uses: dict[Operand, int] = {}
    for operand in [o for e in program.equations for o in e.inputs] + [operand for _, operand in program.outputs]:
        uses[operand] = uses.get(operand, 0) + 1

    def rule(equation: Equation, makers: Mapping[Value, Equation]) -> Equation | Operand:
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

    return _rewrite(program, rule)


def _letters(equation: Equation) -> tuple[list[str], str]:
    operands, _, result = equation.params["subscripts"].partition("->")
    return operands.split(","), result


PASSES: tuple[Pass, ...] = (
    literals_last,
    forget_identities,
    spread_implicitly,
    transpose_in_einsum,
    cse,
    dce,
)
"""In the order in which they are applied."""


def optimise(program: Program) -> Program:
    """Applies every pass."""
    for each in PASSES:
        program = each(program)
    return program
