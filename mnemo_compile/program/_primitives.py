"""The primitives: one row each, with its meaning, its parameters, the type of its result, its cost and its traits.

Passes and targets ask the table and keep no lists of names of their own. A new primitive is one row here and one entry
in the table of each target.
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ..errors import MnemoError
from ._program import Dim, Equation, Shape, size_of

LAX = "lax."
"""How the primitives of JAX begin in a program that was traced; `canonicalise` says them in the closed set."""

Array = Any
Meaning = Callable[[Equation, Sequence[Array], tuple[int, ...]], Array]
"""From an equation, its inputs as arrays of NumPy and the shape of its output to the output."""


class Trait(enum.Flag):
    """What passes and targets ask of a primitive."""

    ELEMENTWISE = enum.auto()
    """Works on each place by itself, and broadcasts sizes of one as NumPy does."""
    COMMUTATIVE = enum.auto()
    """Has two inputs, in either order."""
    VIEW = enum.auto()
    """The result may share memory with the input."""
    PLACES = enum.auto()
    """Each place of the result is a place of the input, and no place is repeated."""
    CUT = enum.auto()
    """The result is a part of the input."""
    ALIGNED = enum.auto()
    """Inputs must agree in the number of rows: one row is not repeated for many."""


NO_TRAIT = Trait(0)


@dataclasses.dataclass(frozen=True)
class Primitive:
    """A row of the table.

    **Arguments:**

    - `meaning`: the interpreter over NumPy.
    - `shape`, `dtype`: of the result, as they follow from an equation's inputs and parameters. A `ValueError` says
        what does not fit.
    - `arity`: number of inputs, or None for any.
    - `params`: the names of the parameters, all of which an equation has.
    - `traits`: see `Trait`.
    - `operations`: floating-point operations of an equation over one row.
    - `is_closed`: whether a cell's program may hold it. Otherwise it stands only in programs that are lowered for a
        target, which has it as a single operation.
    """

    meaning: Meaning
    shape: Callable[[Equation], Shape]
    dtype: Callable[[Equation], str]
    arity: int | None = 1
    params: tuple[str, ...] = ()
    traits: Trait = NO_TRAIT
    operations: Callable[[Equation], int] = lambda equation: size_of(equation.output.shape)
    is_closed: bool = True


def broadcast_shapes(shapes: Iterable[Shape]) -> Shape:
    """The shape of an elementwise result. Shapes that do not fit raise `ValueError`."""
    distinct = list(dict.fromkeys(shapes))
    if len(distinct) == 1:
        return distinct[0]
    rank = max(map(len, distinct))
    padded = [(1,) * (rank - len(shape)) + shape for shape in distinct]
    return tuple(_common_size(sizes, distinct) for sizes in zip(*padded, strict=True))


def _common_size(sizes: Iterable[Dim], shapes: Sequence[Shape]) -> Dim:
    different = {size for size in sizes if size != 1} or {1}
    if len(different) > 1:
        raise ValueError(f"the shapes {' and '.join(map(str, shapes))} do not broadcast")
    return different.pop()


def einsum_letters(equation: Equation) -> tuple[list[str], str]:
    """The letters of each operand of an einsum, and those of its result."""
    operands, _, result = equation.params["subscripts"].partition("->")
    return operands.split(","), result


def einsum_sizes(equation: Equation) -> dict[str, Dim]:
    """The size that each letter of an einsum stands for. Sizes that do not agree raise `ValueError`."""
    sizes: dict[str, Dim] = {}
    for letters, operand in zip(einsum_letters(equation)[0], equation.inputs, strict=True):
        for letter, size in zip(letters, operand.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise ValueError(f"the axis {letter} is both {sizes[letter]} and {size}")
    return sizes


def matrix_product(subscripts: str) -> tuple[bool, bool] | None:
    """Whether each operand is transposed, if an einsum multiplies two batches of matrices; None if it does not."""
    operands, _, result = subscripts.partition("->")
    letters = operands.split(",")
    if len(letters) != 2 or [len(each) for each in (*letters, result)] != [3, 3, 3]:
        return None
    batch, row, column = result
    shared = "".join({*letters[0]} - {*result})
    left, right = (batch + row + shared, batch + shared + row), (batch + shared + column, batch + column + shared)
    if letters[0] not in left or letters[1] not in right or len({*result, *shared}) != 4:
        return None
    return letters[0] == left[1], letters[1] == right[1]


def _call(function: Callable[..., Array]) -> Meaning:
    return lambda equation, arrays, shape: function(*arrays)


# Shapes.


def _first_shape(equation: Equation) -> Shape:
    return equation.inputs[0].shape


def _broadcast_inputs(equation: Equation) -> Shape:
    return broadcast_shapes(operand.shape for operand in equation.inputs)


def _with_as_many_places(equation: Equation) -> Shape:
    before, after = equation.inputs[0].shape, equation.output.shape
    free = [[size for size in shape if isinstance(size, str)] for shape in (before, after)]
    if size_of(before) != size_of(after) or free[0] != free[1]:
        raise ValueError(f"{before} has not as many places as {after}")
    return after


def _broadcast_to_output(equation: Equation) -> Shape:
    return broadcast_shapes([equation.inputs[0].shape, equation.output.shape])


def _without_axes(shape: Shape, axes: Sequence[int]) -> Shape:
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def _permuted(equation: Equation) -> Shape:
    return tuple(equation.inputs[0].shape[axis] for axis in equation.params["permutation"])


def _joined(equation: Equation) -> Shape:
    axis, shapes = equation.params["axis"], [operand.shape for operand in equation.inputs]
    if len({_without_axes(shape, (axis,)) for shape in shapes}) > 1:
        raise ValueError(f"the shapes {' and '.join(map(str, shapes))} do not join along axis {axis}")
    length = sum(size for shape in shapes if isinstance(size := shape[axis], int))
    return (*shapes[0][:axis], length, *shapes[0][axis + 1 :])


def _cut(equation: Equation) -> Shape:
    axis, start, stop = (equation.params[key] for key in ("axis", "start", "stop"))
    shape = equation.inputs[0].shape
    _check_places(shape, axis, start, stop)
    return (*shape[:axis], stop - start, *shape[axis + 1 :])


def _indexed(equation: Equation) -> Shape:
    axis, place = equation.params["axis"], equation.params["place"]
    shape = equation.inputs[0].shape
    _check_places(shape, axis, place, place + 1)
    return _without_axes(shape, (axis,))


def _check_places(shape: Shape, axis: int, start: int, stop: int) -> None:
    size = shape[axis]
    if not isinstance(size, int) or not 0 <= start <= stop <= size:
        raise ValueError(f"axis {axis} of {shape} has no places {start}:{stop}")


def _contracted(equation: Equation) -> Shape:
    sizes = einsum_sizes(equation)
    return tuple(sizes[letter] for letter in einsum_letters(equation)[1])


# Dtypes.


def _first(equation: Equation) -> str:
    return equation.inputs[0].dtype


def _output(equation: Equation) -> str:
    return equation.output.dtype


def _common(equation: Equation) -> str:
    dtypes = sorted({operand.dtype for operand in equation.inputs})
    if len(dtypes) > 1:
        raise ValueError(f"the inputs are {' and '.join(dtypes)}")
    return dtypes[0]


def _compared(equation: Equation) -> str:
    _common(equation)
    return "bool"


def _logical(equation: Equation) -> str:
    if _common(equation) != "bool":
        raise ValueError(f"the inputs are {_common(equation)} and not bool")
    return "bool"


# Rows of one kind.


def _elementwise(
    function: Callable[..., Array],
    arity: int = 1,
    dtype: Callable[[Equation], str] = _common,
    traits: Trait = NO_TRAIT,
    **fields: Any,
) -> Primitive:
    return Primitive(_call(function), _broadcast_inputs, dtype, arity, traits=Trait.ELEMENTWISE | traits, **fields)


def _fused(meaning: Meaning, operations: int, arity: int, *params: str) -> Primitive:
    """Elementwise arithmetic that a target has as one operation, of so many operations of the closed set."""
    return Primitive(
        meaning,
        _broadcast_inputs,
        _common,
        arity,
        params,
        Trait.ELEMENTWISE,
        lambda equation: operations * size_of(equation.output.shape),
        is_closed=False,
    )


def _no_operations(equation: Equation) -> int:
    return 0


def _reduce(equation: Equation, arrays: Sequence[Array], shape: tuple[int, ...]) -> Array:
    reduce = {"sum": np.sum, "max": np.max, "min": np.min}[equation.params["kind"]]
    return reduce(arrays[0], axis=equation.params["axes"])


def _slice(equation: Equation, arrays: Sequence[Array], shape: tuple[int, ...]) -> Array:
    axis, start, stop = (equation.params[key] for key in ("axis", "start", "stop"))
    return arrays[0][(slice(None),) * axis + (slice(start, stop),)]


def _index(equation: Equation, arrays: Sequence[Array], shape: tuple[int, ...]) -> Array:
    return np.take(arrays[0], equation.params["place"], axis=equation.params["axis"])


def _addcmul(equation: Equation, arrays: Sequence[Array], shape: tuple[int, ...]) -> Array:
    return arrays[0] + equation.params["value"] * arrays[1] * arrays[2]


def _add_scaled(equation: Equation, arrays: Sequence[Array], shape: tuple[int, ...]) -> Array:
    return arrays[0] + equation.params["alpha"] * arrays[1]


def _add_product(equation: Equation, arrays: Sequence[Array], shape: tuple[int, ...]) -> Array:
    subscripts, alpha, beta = (equation.params[key] for key in ("subscripts", "alpha", "beta"))
    return beta * arrays[0] + alpha * np.einsum(subscripts, *arrays[1:])


_erf = np.vectorize(math.erf, otypes=[np.float64])

PRIMITIVES: Mapping[str, Primitive] = {
    "neg": _elementwise(np.negative),
    "abs": _elementwise(np.abs),
    "exp": _elementwise(np.exp),
    "log": _elementwise(np.log),
    "log1p": _elementwise(np.log1p),
    "expm1": _elementwise(np.expm1),
    "sqrt": _elementwise(np.sqrt),
    "rsqrt": _elementwise(lambda x: 1 / np.sqrt(x)),
    "tanh": _elementwise(np.tanh),
    "sin": _elementwise(np.sin),
    "cos": _elementwise(np.cos),
    "erf": _elementwise(_erf),
    "floor": _elementwise(np.floor),
    "sign": _elementwise(np.sign),
    "is_finite": _elementwise(np.isfinite, dtype=_compared),
    "not": _elementwise(np.logical_not, dtype=_logical),
    "add": _elementwise(np.add, 2, traits=Trait.COMMUTATIVE),
    "sub": _elementwise(np.subtract, 2),
    "mul": _elementwise(np.multiply, 2, traits=Trait.COMMUTATIVE),
    "div": _elementwise(np.divide, 2),
    "max": _elementwise(np.maximum, 2, traits=Trait.COMMUTATIVE),
    "min": _elementwise(np.minimum, 2, traits=Trait.COMMUTATIVE),
    # The exponent may be an integer.
    "pow": _elementwise(np.power, 2, dtype=_first),
    "gt": _elementwise(np.greater, 2, dtype=_compared),
    "ge": _elementwise(np.greater_equal, 2, dtype=_compared),
    "eq": _elementwise(np.equal, 2, dtype=_compared),
    "and": _elementwise(np.logical_and, 2, dtype=_logical),
    "or": _elementwise(np.logical_or, 2, dtype=_logical),
    # Of a condition, what it is where that is true, and what it is elsewhere.
    "select": _elementwise(np.where, 3, dtype=lambda equation: equation.inputs[1].dtype),
    "convert": _elementwise(
        lambda x: x,
        dtype=lambda equation: equation.params["dtype"],
        traits=Trait.VIEW,
        params=("dtype",),
        operations=_no_operations,
    ),
    # To the nearest number of bfloat16.
    "to_bfloat16": _elementwise(lambda x: np.asarray(x, ml_dtypes.bfloat16)),
    "reduce": Primitive(
        _reduce,
        lambda equation: _without_axes(equation.inputs[0].shape, equation.params["axes"]),
        _first,
        params=("kind", "axes"),
        operations=lambda equation: size_of(equation.inputs[0].shape),
    ),
    "reshape": Primitive(
        lambda equation, arrays, shape: np.reshape(arrays[0], shape),
        _with_as_many_places,
        _first,
        traits=Trait.VIEW | Trait.PLACES,
        operations=_no_operations,
    ),
    # Of sizes of one, or of a number.
    "broadcast": Primitive(
        lambda equation, arrays, shape: np.broadcast_to(arrays[0], shape),
        _broadcast_to_output,
        _first,
        traits=Trait.VIEW,
        operations=_no_operations,
    ),
    "transpose": Primitive(
        lambda equation, arrays, shape: np.transpose(arrays[0], equation.params["permutation"]),
        _permuted,
        _first,
        params=("permutation",),
        traits=Trait.VIEW | Trait.PLACES,
        operations=_no_operations,
    ),
    "concatenate": Primitive(
        lambda equation, arrays, shape: np.concatenate(arrays, axis=equation.params["axis"]),
        _joined,
        _common,
        arity=None,
        params=("axis",),
        traits=Trait.ALIGNED,
        operations=_no_operations,
    ),
    "slice": Primitive(
        _slice,
        _cut,
        _first,
        params=("axis", "start", "stop"),
        traits=Trait.VIEW | Trait.PLACES | Trait.CUT,
        operations=_no_operations,
    ),
    "einsum": Primitive(
        lambda equation, arrays, shape: np.einsum(equation.params["subscripts"], *arrays),
        _contracted,
        _output,
        arity=None,
        params=("subscripts",),
        traits=Trait.ALIGNED,
        operations=lambda equation: 2 * size_of(list(einsum_sizes(equation).values())),
    ),
    # A slice of one place, without its axis.
    "index": Primitive(
        _index,
        _indexed,
        _first,
        params=("axis", "place"),
        traits=Trait.VIEW | Trait.PLACES | Trait.CUT,
        operations=_no_operations,
        is_closed=False,
    ),
    # x + value · y · z.
    "addcmul": _fused(_addcmul, 3, 3, "value"),
    # x + alpha · y.
    "add_scaled": _fused(_add_scaled, 2, 2, "alpha"),
    # beta · x + alpha · y z, where y and z are batches of matrices.
    "add_product": Primitive(
        _add_product,
        _first_shape,
        _common,
        3,
        ("subscripts", "alpha", "beta"),
        Trait.ALIGNED,
        # The sizes of tiles are free, and one row's operations are counted for sizes of 1.
        lambda equation: 4 * size_of(equation.output.shape),
        is_closed=False,
    ),
    # tanh, within rounding, as arithmetic that a compiler puts into the loop around it.
    "rational_tanh": _fused(_call(np.tanh), 1, 1),
}
"""Every primitive, by name."""

CLOSED_SET = frozenset(name for name, primitive in PRIMITIVES.items() if primitive.is_closed)
"""The primitives of a cell's program after the passes: those that every target has to say."""


def has_trait(equation: Equation, trait: Trait) -> bool:
    """Whether the equation's primitive has a trait, or all of several; one that has no row has none."""
    primitive = PRIMITIVES.get(equation.primitive)
    return primitive is not None and trait in primitive.traits


def unsupported(equation: Equation, target: str, table: Iterable[str]) -> MnemoError:
    """The refusal of a primitive that is not in the table of a target."""
    return MnemoError(
        f"the primitive {equation.primitive.removeprefix(LAX)} ({equation.source}) cannot be said in {target}; "
        f"say it with: {', '.join(sorted(table))}"
    )
