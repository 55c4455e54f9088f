"""Operations of torch that do in one pass over memory what the closed set does in several."""

import dataclasses

import numpy as np

from .._primitives import has_trait, matrix_product, Trait
from .._program import Equation, Literal, Operand, Program, Value
from .._rewrite import Replacement, Rewriter, Rule
from ._cse import cse
from ._dce import dce


def fuse(program: Program) -> Program:
    """Makes single operations of sums of products, and of slices of one place.

    `addcmul[value]` is x + value · y · z, `add_scaled[alpha]` is x + alpha · y, `add_product[alpha, beta]` is
    beta · x + alpha · y z for tiles, and `index[axis, place]` is a slice without its axis. They equal the equations
    that they stand for but for rounding.
    """
    for rule in (
        index_rule,
        _scale_behind_view,
        _scale_behind_view,
        _product_and_sum,
        _one_plus,
        _scaled_factor,
        _scaled_factor,
        _product_of_tiles,
    ):
        program = apply_rule(program, rule)
    return cse(program)


def apply_rule(program: Program, rule: Rule) -> Program:
    """The program after one rule, without what it leaves unused; with all of its inputs."""
    return dataclasses.replace(dce(Rewriter(program).run(rule)), inputs=program.inputs)


def _literal(operand: Operand) -> float | None:
    return float(operand.value) if isinstance(operand, Literal) and _is_float(operand) else None


def renewed(equation: Equation, primitive: str, *inputs: Operand, **params: object) -> Equation:
    """Another equation for the same result."""
    return Equation(primitive, inputs, equation.outputs, params, equation.source)


def _is_float(operand: Operand) -> bool:
    return np.issubdtype(np.dtype(operand.dtype), np.floating)


def index_rule(rewriter: Rewriter, equation: Equation) -> Replacement:
    """One place along an axis, without the axis."""
    cut = rewriter.producer(equation.inputs[0], "slice") if equation.primitive == "reshape" else None
    if cut is None:
        return equation
    axis, start, stop = (cut.params[key] for key in ("axis", "start", "stop"))
    shape = cut.output.shape
    if stop - start != 1 or equation.output.shape != shape[:axis] + shape[axis + 1 :]:
        return equation
    return renewed(equation, "index", cut.inputs[0], axis=axis, place=start)


def _scale_behind_view(rewriter: Rewriter, equation: Equation) -> Replacement:
    """slice(x · c) is slice(x) · c, so that c meets what it is used in."""
    if not has_trait(equation, Trait.VIEW | Trait.PLACES):
        return equation
    product = rewriter.producer(equation.inputs[0], "mul")
    if product is None or _literal(product.inputs[1]) is None:
        return equation
    operand, scale = product.inputs
    before = rewriter.producers.get(operand)
    is_cut = has_trait(equation, Trait.CUT) or (before is not None and has_trait(before, Trait.CUT))
    if not is_cut or operand.shape != product.output.shape:
        return equation
    view = rewriter.emit(
        equation,
        equation.primitive,
        operand,
        shape=equation.output.shape,
        dtype=equation.output.dtype,
        name=f"{equation.output.name}.unscaled",
        **equation.params,
    )
    return renewed(equation, "mul", view, scale)


def _product_and_sum(rewriter: Rewriter, equation: Equation) -> Replacement:
    """x + y · z and x − y · z."""
    if equation.primitive not in ("add", "sub") or not _is_float(equation.output):
        return equation
    sign = 1.0 if equation.primitive == "add" else -1.0
    orders = [equation.inputs[::-1], equation.inputs][: 2 if sign > 0 else 1]
    # The sum is the first operand: one that may be overwritten goes there.
    for term, rest in sorted(orders, key=lambda order: order[1] not in rewriter.producers):
        product = rewriter.sole_producer(term, "mul")
        if product is None or product.output.shape != equation.output.shape:
            continue
        scale = _literal(product.inputs[1])
        if scale is not None:
            if isinstance(rest, Literal):
                continue
            return renewed(equation, "add_scaled", rest, product.inputs[0], alpha=sign * scale)
        if isinstance(rest, Literal):
            name, dtype = f"{equation.output.name}.constant", equation.output.dtype
            rest = rewriter.emit(equation, "broadcast", rest, shape=(), dtype=dtype, name=name)
        return renewed(equation, "addcmul", rest, *product.inputs, value=sign)
    return equation


def _one_plus(rewriter: Rewriter, equation: Equation) -> Replacement:
    """(y + 1) · x, which is x + y · x."""
    if equation.primitive != "mul" or not _is_float(equation.output):
        return equation
    for left, right in (equation.inputs, equation.inputs[::-1]):
        total = rewriter.sole_producer(left, "add")
        is_whole = isinstance(right, Value) and right.shape == left.shape == equation.output.shape
        if total is not None and is_whole and _literal(total.inputs[1]) == 1.0:
            return renewed(equation, "addcmul", right, total.inputs[0], right, value=1.0)
    return equation


def _scaled_factor(rewriter: Rewriter, equation: Equation) -> Replacement:
    """x + a · (y · c) · z is x + (a · c) · y · z, and the same with (y · c) twice."""
    if equation.primitive != "addcmul":
        return equation
    start, left, right = equation.inputs
    value = equation.params["value"]
    product = rewriter.sole_producer(left, "mul", uses=2) if left == right else None
    if product is not None:
        scale = _literal(product.inputs[1])
        square = None if scale is None else value * scale * scale
        if square is not None and 1e-30 < abs(square) < 1e30:
            return renewed(equation, "addcmul", start, product.inputs[0], product.inputs[0], value=square)
        return equation
    for factor, other in ((left, right), (right, left)):
        product = rewriter.sole_producer(factor, "mul")
        scale = None if product is None else _literal(product.inputs[1])
        if product is not None and scale is not None and start != factor:
            return renewed(equation, "addcmul", start, product.inputs[0], other, value=value * scale)
    return equation


def is_of_tiles(equation: Equation) -> bool:
    """Whether an einsum multiplies two batches of matrices whose sizes are free."""
    return matrix_product(equation.params["subscripts"]) is not None and all(
        sum(isinstance(size, str) for size in operand.shape) > 1 for operand in equation.inputs
    )


def _product_of_tiles(rewriter: Rewriter, equation: Equation) -> Replacement:
    """β · x + α · y z."""
    if equation.primitive not in ("add", "add_scaled"):
        return equation
    terms = list(zip(equation.inputs, (1.0, equation.params.get("alpha", 1.0)), strict=True))
    for (term, alpha), (rest, beta) in (terms, terms[::-1]):
        product = rewriter.sole_producer(term, "einsum")
        if product is None or not is_of_tiles(product):
            continue
        scaled = rewriter.sole_producer(rest, "mul")
        scale = None if scaled is None else _literal(scaled.inputs[1])
        if scaled is not None and scale is not None:
            rest, beta = scaled.inputs[0], beta * scale
        if rest.shape == equation.output.shape:
            subscripts = product.params["subscripts"]
            inputs = (rest, *product.inputs)
            return renewed(equation, "add_product", *inputs, subscripts=subscripts, alpha=alpha, beta=beta)
    return equation
