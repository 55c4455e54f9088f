"""The canonical forms: JAX's primitives said in the closed set, each thing in one way."""

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ._evaluate import CLOSED_SET
from ._program import Dim, Equation, Literal, Operand, Program, Value
from ._rewrite import Replacement, Rewriter

_IDENTITIES = frozenset({"stop_gradient", "copy", "copy_p", "optimization_barrier", "pvary"})
_REDUCTIONS = {"reduce_sum": "sum", "reduce_max": "max", "reduce_min": "min"}


def canonicalise(program: Program) -> Program:
    """Says every equation in the closed set.

    There is one contraction (`einsum`), one reduction (`reduce`), one way to cut (`slice`, along one axis), to shape
    (`reshape`), to spread (`broadcast`, of sizes of one) and to compare (`gt`, `ge`, `eq`). What cannot be said stays
    as it is, for the emitters to refuse by name.
    """
    return Rewriter(program).run(_rule)


def _rule(rewriter: Rewriter, equation: Equation) -> Replacement:
    if equation.primitive in _IDENTITIES:
        return equation.inputs
    lowering = _LOWERINGS.get(equation.primitive)
    if lowering is None:
        return equation
    result = lowering(_Expansion(rewriter, equation))
    return equation if result is None else result


class _Expansion:
    """One equation on its way into the closed set."""

    def __init__(self, rewriter: Rewriter, equation: Equation):
        self.rewriter = rewriter
        self.equation = equation
        self.inputs = equation.inputs
        self.params: Mapping[str, Any] = equation.params
        self.shape = equation.output.shape
        self.dtype = equation.output.dtype

    def emit(
        self,
        primitive: str,
        *inputs: Operand,
        shape: Sequence[Dim] | None = None,
        dtype: str | None = None,
        **params: Any,
    ) -> Value:
        shape = self.shape if shape is None else shape
        return self.rewriter.emit(self.equation, primitive, *inputs, shape=shape, dtype=dtype or self.dtype, **params)

    def finish(self, primitive: str, *inputs: Operand, **params: Any) -> Equation:
        """The last equation, under the name of the old one."""
        return Equation(primitive, inputs, self.equation.outputs[:1], params, self.equation.source)

    def reshape(self, operand: Operand, shape: Sequence[Dim]) -> Operand:
        """The operand in this shape."""
        shape = tuple(shape)
        return operand if operand.shape == shape else self.emit("reshape", operand, shape=shape, dtype=operand.dtype)

    def known(self, operand: Operand) -> np.ndarray | None:
        """The operand's content, if it is a weight."""
        return self.rewriter.arrays.get(operand.name) if isinstance(operand, Value) else np.asarray(operand.value)


Lowering = Callable[[_Expansion], "Replacement | None"]


def _renamed(primitive: str) -> Lowering:
    return lambda x: x.finish(primitive, *x.inputs)


def _logical(primitive: str) -> Lowering:
    """Of booleans; the same primitive on integers works bit by bit and stays."""
    return lambda x: x.finish(primitive, *x.inputs) if x.dtype == "bool" else None


def _swapped(primitive: str) -> Lowering:
    return lambda x: x.finish(primitive, x.inputs[1], x.inputs[0])


def _not_equal(x: _Expansion) -> Replacement:
    return x.finish("not", x.emit("eq", *x.inputs))


def _exclusive_or(x: _Expansion) -> Replacement | None:
    return _not_equal(x) if x.dtype == "bool" else None


def _logistic(x: _Expansion) -> Replacement:
    one = Literal(1.0, x.dtype)
    return x.finish("div", one, x.emit("add", x.emit("exp", x.emit("neg", x.inputs[0])), one))


def _clamp(x: _Expansion) -> Replacement:
    low, operand, high = x.inputs
    return x.finish("min", x.emit("max", operand, low), high)


def _power(x: _Expansion) -> Replacement:
    """By squaring: exact where `pow` of a negative number would not be."""
    power, base = x.params["power"], x.inputs[0]
    if power == 0:
        return x.finish("broadcast", Literal(1.0, x.dtype))
    factors: list[Operand] = []
    left = abs(power)
    while left:
        if left & 1:
            factors.append(base)
        left >>= 1
        if left:
            base = x.emit("mul", base, base)
    product = factors[0]
    for factor in factors[1:]:
        product = x.emit("mul", product, factor)
    return product if power > 0 else x.finish("div", Literal(1.0, x.dtype), product)


def _square(x: _Expansion) -> Replacement:
    return x.finish("mul", x.inputs[0], x.inputs[0])


def _select(x: _Expansion) -> Replacement | None:
    which, *cases = x.inputs
    return x.finish("select", which, cases[1], cases[0]) if len(cases) == 2 and which.dtype == "bool" else None


def _reduce(x: _Expansion) -> Replacement:
    return x.finish("reduce", x.inputs[0], kind=_REDUCTIONS[x.equation.primitive], axes=x.params["axes"])


def _reduce_precision(x: _Expansion) -> Replacement | None:
    is_bfloat16 = (x.params["exponent_bits"], x.params["mantissa_bits"]) == (8, 7)
    return x.finish("to_bfloat16", *x.inputs) if is_bfloat16 else None


def _reshape(x: _Expansion) -> Replacement:
    return x.inputs[0] if x.inputs[0].shape == x.shape else x.finish("reshape", x.inputs[0])


def _broadcast(x: _Expansion) -> Replacement:
    operand = x.inputs[0]
    if operand.shape != ():
        placed = dict(zip(x.params["dimensions"], operand.shape, strict=True))
        operand = x.reshape(operand, [placed.get(axis, 1) for axis in range(len(x.shape))])
    return operand if operand.shape == x.shape else x.finish("broadcast", operand)


def _concatenate(x: _Expansion) -> Replacement:
    return x.finish("concatenate", *x.inputs, axis=x.params["axis"])


def _stack(x: _Expansion) -> Replacement:
    axis = x.params["axis"]
    rows = [x.reshape(operand, (*operand.shape[:axis], 1, *operand.shape[axis:])) for operand in x.inputs]
    return x.finish("concatenate", *rows, axis=axis)


def _take(
    x: _Expansion, operand: Operand, ranges: Mapping[int, tuple[int, int]], collapsed: Sequence[int] = ()
) -> Operand:
    """Consecutive places along axes, and without the axes that are collapsed."""
    shape = list(operand.shape)
    for axis, (start, stop) in sorted(ranges.items()):
        if (start, stop) != (0, shape[axis]):
            shape[axis] = stop - start
            operand = x.emit("slice", operand, shape=shape, dtype=operand.dtype, axis=axis, start=start, stop=stop)
    return x.reshape(operand, [size for axis, size in enumerate(shape) if axis not in collapsed])


def _slice(x: _Expansion) -> Replacement | None:
    if "axis" in x.params or any(stride != 1 for stride in x.params["strides"]):
        return None
    places = enumerate(zip(x.params["starts"], x.params["stops"], strict=True))
    return _take(x, x.inputs[0], {axis: place for axis, place in places if isinstance(place[1], int)})


def _split(x: _Expansion) -> Replacement:
    ends = np.cumsum((0, *x.params["sizes"])).tolist()
    axis = x.params["axis"]
    return tuple(_take(x, x.inputs[0], {axis: place}) for place in zip(ends, ends[1:], strict=False))


def _gather(x: _Expansion) -> Replacement | None:
    """One slice at a place that the code says: what `x[:, 0]` becomes where a size is free."""
    operand, index = x.inputs
    places = x.known(index)
    if places is None or places.ndim != 1 or x.params["batching"]:
        return None
    sizes = x.params["sizes"]
    ranges: dict[int, tuple[int, int]] = {}
    for axis, start in zip(x.params["index_map"], places.tolist(), strict=True):
        size, width = operand.shape[axis], sizes[axis]
        if not isinstance(size, int) or not 0 <= start <= size - width:
            return None
        ranges[axis] = (start, start + width)
    if any(axis not in ranges and sizes[axis] != size for axis, size in enumerate(operand.shape)):
        return None
    return _take(x, operand, ranges, x.params["collapsed"])


def _dot_general(x: _Expansion) -> Replacement:
    """A contraction in letters: batch axes first, then what is left of either operand."""
    (left_sum, right_sum), (left_batch, right_batch) = x.params["contract"], x.params["batch"]
    letters = iter(string.ascii_lowercase)
    left = [next(letters) for _ in x.inputs[0].shape]
    right = [""] * len(x.inputs[1].shape)
    for mine, theirs in zip((*left_sum, *left_batch), (*right_sum, *right_batch), strict=True):
        right[theirs] = left[mine]
    right = [letter or next(letters) for letter in right]
    batch = [left[axis] for axis in left_batch]
    rest = [letter for axis, letter in enumerate(left) if axis not in (*left_sum, *left_batch)]
    rest += [letter for axis, letter in enumerate(right) if axis not in (*right_sum, *right_batch)]
    subscripts = f"{''.join(left)},{''.join(right)}->{''.join(batch + rest)}"
    return x.finish("einsum", *x.inputs, subscripts=subscripts)


def _convert(x: _Expansion) -> Replacement:
    return x.finish("convert", x.inputs[0], dtype=x.dtype)


_LOWERINGS: dict[str, Lowering] = {
    "and": _logical("and"),
    "broadcast_in_dim": _broadcast,
    "clamp": _clamp,
    "concatenate": _concatenate,
    "convert_element_type": _convert,
    "reduce_precision": _reduce_precision,
    "dot_general": _dot_general,
    "expand_dims": _reshape,
    "gather": _gather,
    "integer_pow": _power,
    "le": _swapped("ge"),
    "logistic": _logistic,
    "lt": _swapped("gt"),
    "ne": _not_equal,
    "not": _logical("not"),
    "or": _logical("or"),
    "reduce_max": _reduce,
    "reduce_min": _reduce,
    "reduce_sum": _reduce,
    "reshape": _reshape,
    "select_n": _select,
    "slice": _slice,
    "split": _split,
    "square": _square,
    "squeeze": _reshape,
    "stack": _stack,
    "xor": _exclusive_or,
}

KNOWN = frozenset(CLOSED_SET) | frozenset(_LOWERINGS) | _IDENTITIES
"""JAX's primitives that can be said."""
