"""Each primitive of the closed set as ONNX nodes."""

import numpy as np
import onnx_ir as ir

from ...program import Equation, Literal, matrix_product
from ._builder import Builder, data_type, Lowering

_REDUCTIONS = {"sum": "ReduceSum", "max": "ReduceMax", "min": "ReduceMin"}


def _node(kind: str) -> Lowering:
    return lambda builder, equation, inputs: builder.op(kind, *inputs)


def _float(builder: Builder, value: ir.Value, number: float) -> ir.Value:
    """A number in the dtype of a value."""
    assert value.dtype is not None
    return builder.constant(number, value.dtype.numpy())


def _rsqrt(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    return b.op("Reciprocal", b.op("Sqrt", inputs[0]))


def _is_finite(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    return b.op("Less", b.op("Abs", inputs[0]), _float(b, inputs[0], np.inf))


def _log1p(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    """With u = 1 + x rounded, log(u) x / (u − 1): the two roundings cancel (Kahan)."""
    (x,) = inputs
    one = _float(b, x, 1)
    u = b.op("Add", x, one)
    difference = b.op("Sub", u, one)
    # Where x is so large that nothing was rounded, x / x would overflow or be infinity over infinity.
    correction = b.op("Where", b.op("Equal", difference, x), one, b.op("Div", x, difference))
    return b.op("Where", b.op("Equal", u, one), x, b.op("Mul", b.op("Log", u), correction))


def _expm1(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    """With u = exp(x) rounded, (u − 1) x / log(u) where x is small (Kahan), else u − 1."""
    (x,) = inputs
    one = _float(b, x, 1)
    u = b.op("Exp", x)
    difference = b.op("Sub", u, one)
    small = b.op("Mul", difference, b.op("Div", x, b.op("Log", u)))
    exact = b.op("Where", b.op("Less", b.op("Abs", x), one), small, difference)
    return b.op("Where", b.op("Equal", u, one), x, exact)


def _floor(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    """Numbers too large for a fraction stay as they are, as ONNX Runtime 1.14 would convert them to 32-bit integers."""
    (x,) = inputs
    assert x.dtype is not None
    whole = _float(b, x, 2.0 ** np.finfo(x.dtype.numpy()).nmant)
    return b.op("Where", b.op("Less", b.op("Abs", x), whole), b.op("Floor", x), x)


def _erf(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    """NaN stays NaN; ONNX Runtime 1.14 returns 1 for it."""
    return b.op("Where", b.op("IsNaN", inputs[0]), inputs[0], b.op("Erf", inputs[0]))


def _extreme(kind: str) -> Lowering:
    def lower(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
        """A second operand of NaN gives NaN; ONNX Runtime 1.14 ignores it."""
        extreme, second = b.op(kind, *inputs), inputs[1]
        if isinstance(equation.inputs[1], Literal) or not equation.output.dtype.startswith("float"):
            return extreme
        return b.op("Where", b.op("IsNaN", second), second, extreme)

    return lower


def _select(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    """ONNX Runtime's Where does not support booleans."""
    if equation.output.dtype != "bool":
        return b.op("Where", *inputs)
    which, on_true, on_false = inputs
    return b.op("Or", b.op("And", which, on_true), b.op("And", b.op("Not", which), on_false))


def _convert(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    return b.op("Cast", inputs[0], to=int(data_type(equation.params["dtype"], f"a value at {equation.source}")))


def _to_bfloat16(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    """|x| + m − m, where m has the exponent of 2¹⁶ x and few bits: the sum has room for the bits of bfloat16 only.

    A Cast to bfloat16 and back does not work, because ONNX Runtime 1.14 and 1.16 remove both.
    """
    (x,) = inputs
    assert x.dtype is not None
    bits = np.finfo(x.dtype.numpy()).nmant
    size, one = b.op("Abs", x), _float(b, x, 1)
    is_large = b.op("Greater", size, one)
    # Large numbers are scaled so that nothing overflows.
    scaled = b.op("Mul", size, b.op("Where", is_large, _float(b, x, 2.0**-32), one))
    wide = 2.0 ** (bits - 3)
    near = b.op("Sub", b.op("Mul", scaled, _float(b, x, wide + 1)), b.op("Mul", scaled, _float(b, x, wide)))
    # `near` is the number of four bits or fewer next to |x|; if it is larger, it may have the next exponent.
    shift = 2.0 ** (bits - 7)
    shifts = (_float(b, x, shift * 15 / 16), _float(b, x, shift))
    magic = b.op("Mul", near, b.op("Where", b.op("Greater", near, scaled), *shifts))
    # Numbers below 2⁻¹²⁶ have the same spacing as 2⁻¹²⁶.
    magic = b.op("Max", magic, _float(b, x, shift * 2.0**-126))
    rounded = b.op("Sub", b.op("Add", scaled, magic), magic)
    back = b.op("Mul", rounded, b.op("Where", is_large, _float(b, x, 2.0**32), one))
    return b.op("Where", b.op("Less", size, _float(b, x, np.inf)), b.op("Mul", back, b.op("Sign", x)), x)


def _reduce(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    kind, axes, x = equation.params["kind"], equation.params["axes"], inputs[0]
    if not axes:
        return b.op("Identity", x)
    reduced = b.op(_REDUCTIONS[kind], x, b.ints(*axes), keepdims=0)
    if kind == "sum" or not equation.output.dtype.startswith("float"):
        return reduced
    # ONNX Runtime ignores NaN in these reductions.
    broken = b.op("Where", b.op("IsNaN", x), x, _float(b, x, 0))
    return b.op("Add", reduced, b.op("ReduceSum", broken, b.ints(*axes), keepdims=0))


def _reshape(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    """A free size at the place where the input has it is copied, which ONNX says with 0."""
    before = equation.inputs[0].shape
    sizes = [
        size if isinstance(size, int) else 0 if before[axis : axis + 1] == (size,) else -1
        for axis, size in enumerate(equation.output.shape)
    ]
    return b.op("Reshape", inputs[0], b.ints(*sizes))


def _broadcast(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    """Gives a missing axis of rows the size 1. ONNX's Expand keeps axes that are longer than requested."""
    shape = equation.output.shape
    if not any(size in b.sizes for size in shape):
        return b.op("Expand", inputs[0], b.ints(*(1 if isinstance(size, str) else size for size in shape)))
    sizes = [b.sizes.get(size, b.ints(1 if isinstance(size, str) else size)) for size in shape]
    return b.op("Expand", inputs[0], b.op("Concat", *sizes, axis=0))


def _transpose(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    return b.op("Transpose", inputs[0], perm=equation.params["permutation"])


def _concatenate(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    return b.op("Concat", *inputs, axis=equation.params["axis"])


def _slice(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    return b.op("Slice", inputs[0], *(b.ints(equation.params[key]) for key in ("start", "stop", "axis")))


def _einsum(b: Builder, equation: Equation, inputs: list[ir.Value]) -> ir.Value:
    """A product of the last axis with a vector or matrix is a MatMul, which is faster. So is that of two matrices."""
    subscripts = equation.params["subscripts"]
    operands, _, result = subscripts.partition("->")
    left, *others = operands.split(",")
    rows, contracted, columns = left[:-1], left[-1:], result[len(left) - 1 :]
    if result == rows + columns and len(columns) <= 1 and len(others) == 1:
        if others[0] == contracted + columns:
            return b.op("MatMul", *inputs)
        if others[0] == columns + contracted:
            return b.op("MatMul", inputs[0], b.op("Transpose", inputs[1], perm=(1, 0)))
    turned = matrix_product(subscripts)
    if turned is not None:
        factors = zip(inputs, turned, strict=True)
        return b.op("MatMul", *(b.op("Transpose", x, perm=(0, 2, 1)) if is_turned else x for x, is_turned in factors))
    return b.op("Einsum", *inputs, equation=subscripts)


TABLE: dict[str, Lowering] = {
    "neg": _node("Neg"),
    "abs": _node("Abs"),
    "exp": _node("Exp"),
    "expm1": _expm1,
    "log": _node("Log"),
    "log1p": _log1p,
    "sqrt": _node("Sqrt"),
    "rsqrt": _rsqrt,
    "tanh": _node("Tanh"),
    "sin": _node("Sin"),
    "cos": _node("Cos"),
    "erf": _erf,
    "floor": _floor,
    "sign": _node("Sign"),
    "is_finite": _is_finite,
    "not": _node("Not"),
    "add": _node("Add"),
    "sub": _node("Sub"),
    "mul": _node("Mul"),
    "div": _node("Div"),
    "max": _extreme("Max"),
    "min": _extreme("Min"),
    "pow": _node("Pow"),
    "gt": _node("Greater"),
    "ge": _node("GreaterOrEqual"),
    "eq": _node("Equal"),
    "and": _node("And"),
    "or": _node("Or"),
    "select": _select,
    "convert": _convert,
    "to_bfloat16": _to_bfloat16,
    "reduce": _reduce,
    "reshape": _reshape,
    "broadcast": _broadcast,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "slice": _slice,
    "einsum": _einsum,
}
"""Each primitive of the closed set as nodes."""
