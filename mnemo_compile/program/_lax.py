"""The primitives of JAX: one row each, with how its parameters are read and how it is said in the closed set.

With `_trace.py` this is the file that knows JAX's internals, by their names.
"""

import dataclasses
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ._primitives import CLOSED_SET, PRIMITIVES, Trait
from ._program import Dim, dims, Equation, Literal, Operand, size_of, Value
from ._rewrite import Replacement, Rewriter


class Expansion:
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
        """An equation before the last one; its result is like that of the old one unless it is said otherwise."""
        shape = self.shape if shape is None else shape
        return self.rewriter.emit(self.equation, primitive, *inputs, shape=shape, dtype=dtype or self.dtype, **params)

    def finish(self, primitive: str, *inputs: Operand, **params: Any) -> Equation:
        """The last equation, under the name of the old one."""
        return Equation(primitive, inputs, self.equation.outputs[:1], params, self.equation.source)

    def reshape(self, operand: Operand, shape: Sequence[Dim]) -> Operand:
        """The operand in this shape."""
        shape = tuple(shape)
        return operand if operand.shape == shape else self.emit("reshape", operand, shape=shape, dtype=operand.dtype)

    def content(self, operand: Operand) -> np.ndarray | None:
        """The operand's content, if the program holds it."""
        return self.rewriter.arrays.get(operand.name) if isinstance(operand, Value) else np.asarray(operand.value)


Lowering = Callable[[Expansion], "Replacement | None"]
"""What an equation is in the closed set; None where it cannot be said there."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """A row of the table.

    **Arguments:**

    - `lower`: from an equation to the closed set.
    - `params`: from the parameters that JAX gives a primitive to those that its inputs and outputs leave open, as plain
        data.
    - `operations`: floating-point operations of an equation over one row.
    """

    lower: Lowering
    params: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda params: {}
    operations: Callable[[Equation], int] = lambda equation: size_of(equation.output.shape)


def _named(primitive: str) -> Lowering:
    return lambda x: x.finish(primitive, *x.inputs, **x.params)


def _identity(x: Expansion) -> Replacement:
    return x.inputs


def _logical(primitive: str) -> Lowering:
    """Of booleans; on integers the primitive works bit by bit, and there is no such thing in the closed set."""
    return lambda x: x.finish(primitive, *x.inputs) if x.dtype == "bool" else None


def _swapped(primitive: str) -> Lowering:
    return lambda x: x.finish(primitive, x.inputs[1], x.inputs[0])


def _not_equal(x: Expansion) -> Replacement:
    return x.finish("not", x.emit("eq", *x.inputs))


def _exclusive_or(x: Expansion) -> Replacement | None:
    return _not_equal(x) if x.dtype == "bool" else None


def _logistic(x: Expansion) -> Replacement:
    one = Literal(1.0, x.dtype)
    return x.finish("div", one, x.emit("add", x.emit("exp", x.emit("neg", x.inputs[0])), one))


def _clamp(x: Expansion) -> Replacement:
    low, operand, high = x.inputs
    return x.finish("min", x.emit("max", operand, low), high)


def _power(x: Expansion) -> Replacement:
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


def _square(x: Expansion) -> Replacement:
    return x.finish("mul", x.inputs[0], x.inputs[0])


def _select(x: Expansion) -> Replacement | None:
    which, *cases = x.inputs
    return x.finish("select", which, cases[1], cases[0]) if len(cases) == 2 and which.dtype == "bool" else None


def _reduce(kind: str) -> Lowering:
    return lambda x: x.finish("reduce", x.inputs[0], kind=kind, axes=x.params["axes"])


def _reduce_precision(x: Expansion) -> Replacement | None:
    is_bfloat16 = (x.params["exponent_bits"], x.params["mantissa_bits"]) == (8, 7)
    return x.finish("to_bfloat16", *x.inputs) if is_bfloat16 else None


def _reshape(x: Expansion) -> Replacement:
    return x.inputs[0] if x.inputs[0].shape == x.shape else x.finish("reshape", x.inputs[0])


def _broadcast(x: Expansion) -> Replacement:
    operand = x.inputs[0]
    if operand.shape != ():
        placed = dict(zip(x.params["dimensions"], operand.shape, strict=True))
        operand = x.reshape(operand, [placed.get(axis, 1) for axis in range(len(x.shape))])
    return operand if operand.shape == x.shape else x.finish("broadcast", operand)


def _stack(x: Expansion) -> Replacement:
    axis = x.params["axis"]
    rows = [x.reshape(operand, (*operand.shape[:axis], 1, *operand.shape[axis:])) for operand in x.inputs]
    return x.finish("concatenate", *rows, axis=axis)


def _take(
    x: Expansion, operand: Operand, ranges: Mapping[int, tuple[int, int]], collapsed: Sequence[int] = ()
) -> Operand:
    """Consecutive places along axes, and without the axes that are collapsed."""
    shape = list(operand.shape)
    for axis, (start, stop) in sorted(ranges.items()):
        if (start, stop) != (0, shape[axis]):
            shape[axis] = stop - start
            operand = x.emit("slice", operand, shape=shape, dtype=operand.dtype, axis=axis, start=start, stop=stop)
    return x.reshape(operand, [size for axis, size in enumerate(shape) if axis not in collapsed])


def _slice(x: Expansion) -> Replacement | None:
    if any(stride != 1 for stride in x.params["strides"]):
        return None
    places = enumerate(zip(x.params["starts"], x.params["stops"], strict=True))
    return _take(x, x.inputs[0], {axis: place for axis, place in places if isinstance(place[1], int)})


def _split(x: Expansion) -> Replacement:
    ends = np.cumsum((0, *x.params["sizes"])).tolist()
    axis = x.params["axis"]
    return tuple(_take(x, x.inputs[0], {axis: place}) for place in zip(ends, ends[1:], strict=False))


def _gather(x: Expansion) -> Replacement | None:
    """One slice at a place that the code says: what `x[:, 0]` becomes where a size is free."""
    operand, index = x.inputs
    places = x.content(index)
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


def _dot_general(x: Expansion) -> Replacement:
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


def _convert(x: Expansion) -> Replacement:
    return x.finish("convert", x.inputs[0], dtype=x.dtype)


# Parameters.


def _ints(numbers: Sequence[Any]) -> tuple[int, ...]:
    return tuple(map(int, numbers))


def _slice_params(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "starts": dims(params["start_indices"]),
        "stops": dims(params["limit_indices"]),
        "strides": _ints(params["strides"] or ()),
    }


def _dot_params(params: Mapping[str, Any]) -> dict[str, Any]:
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    return {"contract": (_ints(left_sum), _ints(right_sum)), "batch": (_ints(left_batch), _ints(right_batch))}


def _gather_params(params: Mapping[str, Any]) -> dict[str, Any]:
    numbers = params["dimension_numbers"]
    return {
        "batching": _ints(numbers.operand_batching_dims),
        "collapsed": _ints(numbers.collapsed_slice_dims),
        "index_map": _ints(numbers.start_index_map),
        "sizes": dims(params["slice_sizes"]),
    }


# Operations.


def _none(equation: Equation) -> int:
    return 0


def _of_input(equation: Equation) -> int:
    return size_of(equation.inputs[0].shape)


def _of_product(equation: Equation) -> int:
    summed = [equation.inputs[0].shape[axis] for axis in equation.params["contract"][0]]
    return 2 * size_of(equation.output.shape) * size_of(summed)


def _reduction(kind: str) -> Reading:
    return Reading(_reduce(kind), lambda params: {"axes": _ints(params["axes"])}, _of_input)


READINGS: Mapping[str, Reading] = {
    # JAX names what is elementwise as the closed set does, but for what follows.
    **{name: Reading(_named(name)) for name in CLOSED_SET if Trait.ELEMENTWISE in PRIMITIVES[name].traits},
    "and": Reading(_logical("and")),
    "or": Reading(_logical("or")),
    "not": Reading(_logical("not")),
    "xor": Reading(_exclusive_or),
    "lt": Reading(_swapped("gt")),
    "le": Reading(_swapped("ge")),
    "ne": Reading(_not_equal),
    "select_n": Reading(_select),
    "square": Reading(_square),
    "integer_pow": Reading(_power, lambda params: {"power": int(params["y"])}),
    "logistic": Reading(_logistic),
    "clamp": Reading(_clamp),
    "convert_element_type": Reading(_convert, operations=_none),
    "reduce_precision": Reading(
        _reduce_precision, lambda params: {name: int(params[name]) for name in ("exponent_bits", "mantissa_bits")}
    ),
    "reduce_sum": _reduction("sum"),
    "reduce_max": _reduction("max"),
    "reduce_min": _reduction("min"),
    "reshape": Reading(_reshape, operations=_none),
    "squeeze": Reading(_reshape, operations=_none),
    "expand_dims": Reading(_reshape, operations=_none),
    "broadcast_in_dim": Reading(
        _broadcast, lambda params: {"dimensions": _ints(params["broadcast_dimensions"])}, _none
    ),
    "transpose": Reading(_named("transpose"), lambda params: {"permutation": _ints(params["permutation"])}, _none),
    "concatenate": Reading(_named("concatenate"), lambda params: {"axis": int(params["dimension"])}, _none),
    "stack": Reading(_stack, lambda params: {"axis": int(params["axis"])}, _none),
    "split": Reading(_split, lambda params: {"axis": int(params["axis"]), "sizes": _ints(params["sizes"])}, _none),
    "slice": Reading(_slice, _slice_params, _none),
    "gather": Reading(_gather, _gather_params, _none),
    "dot_general": Reading(_dot_general, _dot_params, _of_product),
    **{
        name: Reading(_identity, operations=_none)
        for name in ("stop_gradient", "copy", "copy_p", "optimization_barrier", "pvary")
    },
}
"""The primitives of JAX that can be said, by the name that JAX gives them."""
