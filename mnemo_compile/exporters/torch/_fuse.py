"""What torch does in one pass over memory where the closed set needs several.

Operations of torch's own stand in the result beside the closed set: `addcmul[value]`, which is x + value · y · z,
`add_scaled[alpha]`, which is x + alpha · y, `index[axis, place]`, and `rational_tanh`. They are equal to the equations
that they stand for but for rounding.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from ...program import cse, dce, Equation, Literal, Operand, Program, Value
from ._per_tensor import count_uses

_VIEWS = frozenset({"reshape", "slice", "transpose", "index"})


@dataclasses.dataclass(frozen=True)
class _Context:
    """What a rule knows of the program: what made a value, and how often it is used."""

    makers: Mapping[Operand, Equation]
    uses: Mapping[Operand, int]

    def only(self, operand: Operand, *primitives: str, uses: int = 1) -> Equation | None:
        """The equation that makes the operand, if it is one of these and nobody else needs the operand."""
        maker = self.makers.get(operand)
        if maker is None or maker.primitive not in primitives or self.uses[operand] != uses:
            return None
        return maker


Rule = Callable[[Equation, _Context], "list[Equation] | None"]
"""Gives the equations that stand for one, the last of which makes its output; None where it does not apply."""


def fuse(program: Program) -> Program:
    """Applies every rule; the program means the same within rounding."""
    for rule in (
        _index,
        _scale_behind_view,
        _scale_behind_view,
        _product_and_sum,
        _one_plus,
        _scaled_factor,
        _scaled_factor,
    ):
        program = _apply(program, rule)
    return cse(program)


def for_compiler(program: Program) -> Program:
    """Says places along an axis as such, and tanh so that it is arithmetic like the rest: what else belongs together, a
    compiler fuses better by itself."""
    return _apply(_apply(program, _index), _rational)


def _rational(equation: Equation, known: "_Context") -> list[Equation] | None:
    return [_new(equation, "rational_tanh", *equation.inputs)] if equation.primitive == "tanh" else None


def _apply(program: Program, rule: Rule) -> Program:
    uses = count_uses(program)
    makers: dict[Operand, Equation] = {}
    equations: list[Equation] = []
    for equation in program.equations:
        for new in rule(equation, _Context(makers, uses)) or [equation]:
            makers.update((output, new) for output in new.outputs)
            equations.append(new)
    return _without_dead(dataclasses.replace(program, equations=tuple(equations)))


def _without_dead(program: Program) -> Program:
    return dataclasses.replace(dce(program), inputs=program.inputs)


def _literal(operand: Operand) -> float | None:
    is_float = isinstance(operand, Literal) and np.issubdtype(np.dtype(operand.dtype), np.floating)
    return float(operand.value) if is_float else None


def _new(equation: Equation, primitive: str, *inputs: Operand, **params: object) -> Equation:
    return Equation(primitive, inputs, equation.outputs, params, equation.source)


def _is_float(value: Operand) -> bool:
    return np.issubdtype(np.dtype(value.dtype), np.floating)


def _index(equation: Equation, known: _Context) -> list[Equation] | None:
    """One place along an axis, without the axis."""
    if equation.primitive != "reshape":
        return None
    maker = known.makers.get(equation.inputs[0])
    if maker is None or maker.primitive != "slice":
        return None
    axis, start, stop = (maker.params[key] for key in ("axis", "start", "stop"))
    shape = maker.output.shape
    if stop - start != 1 or equation.output.shape != shape[:axis] + shape[axis + 1 :]:
        return None
    return [_new(equation, "index", maker.inputs[0], axis=axis, place=start)]


def _scale_behind_view(equation: Equation, known: _Context) -> list[Equation] | None:
    """slice(x · c) is slice(x) · c, so that c meets what it is used in."""
    if equation.primitive not in _VIEWS:
        return None
    maker = known.makers.get(equation.inputs[0])
    if maker is None or maker.primitive != "mul" or _literal(maker.inputs[1]) is None:
        return None
    operand = maker.inputs[0]
    maker_of_operand = known.makers.get(operand)
    cuts = ("slice", "index")
    is_cut = equation.primitive in cuts or (maker_of_operand is not None and maker_of_operand.primitive in cuts)
    if not is_cut:
        return None
    view = Value(f"{equation.output.name}.unscaled", equation.output.shape, equation.output.dtype)
    if operand.shape != maker.output.shape:
        return None
    return [
        Equation(equation.primitive, (operand,), (view,), equation.params, equation.source),
        _new(equation, "mul", view, maker.inputs[1]),
    ]


def _product_and_sum(equation: Equation, known: _Context) -> list[Equation] | None:
    """x + y · z and x − y · z."""
    if equation.primitive not in ("add", "sub") or not _is_float(equation.output):
        return None
    sign = 1.0 if equation.primitive == "add" else -1.0
    orders = [equation.inputs[::-1], equation.inputs][: 2 if sign > 0 else 1]
    # The sum is the first operand: one that may be overwritten goes there.
    for product, rest in sorted(orders, key=lambda order: order[1] not in known.makers):
        maker = known.only(product, "mul")
        if maker is None or maker.output.shape != equation.output.shape:
            continue
        scale = _literal(maker.inputs[1])
        if scale is not None:
            if isinstance(rest, Literal):
                continue
            return [_new(equation, "add_scaled", rest, maker.inputs[0], alpha=sign * scale)]
        if isinstance(rest, Literal):
            one = Value(f"{equation.output.name}.constant", (), equation.output.dtype)
            constant = Equation("broadcast", (rest,), (one,), {}, equation.source)
            return [constant, _new(equation, "addcmul", one, *maker.inputs, value=sign)]
        return [_new(equation, "addcmul", rest, *maker.inputs, value=sign)]
    return None


def _one_plus(equation: Equation, known: _Context) -> list[Equation] | None:
    """(y + 1) · x, which is x + y · x."""
    if equation.primitive != "mul" or not _is_float(equation.output):
        return None
    for left, right in (equation.inputs, equation.inputs[::-1]):
        maker = known.only(left, "add")
        is_whole = isinstance(right, Value) and right.shape == left.shape == equation.output.shape
        if maker is not None and is_whole and _literal(maker.inputs[1]) == 1.0:
            return [_new(equation, "addcmul", right, maker.inputs[0], right, value=1.0)]
    return None


def _scaled_factor(equation: Equation, known: _Context) -> list[Equation] | None:
    """x + a · (y · c) · z is x + (a · c) · y · z, and the same with (y · c) twice."""
    if equation.primitive != "addcmul":
        return None
    start, left, right = equation.inputs
    value = equation.params["value"]
    maker = known.only(left, "mul", uses=2) if left == right else None
    if maker is not None:
        scale = _literal(maker.inputs[1])
        square = None if scale is None else value * scale * scale
        if square is not None and 1e-30 < abs(square) < 1e30:
            return [_new(equation, "addcmul", start, maker.inputs[0], maker.inputs[0], value=square)]
        return None
    for factor, other in ((left, right), (right, left)):
        maker = known.only(factor, "mul")
        scale = None if maker is None else _literal(maker.inputs[1])
        if maker is not None and scale is not None and start != factor:
            return [_new(equation, "addcmul", start, maker.inputs[0], other, value=value * scale)]
    return None
