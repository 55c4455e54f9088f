"""A program as assignments to numbers and blocks: what a kernel computes of one block.

Axes that a kernel works on at once, such as the coordinates of a chunk, are axes of Triton's blocks. All other axes are
taken apart, so that an array of small features is as many variables, and the entries of weights are literals.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ....program import (
    einsum_letters,
    Equation,
    has_trait,
    Literal,
    matrix_product,
    Names,
    Operand,
    PRIMITIVES,
    Program,
    Shape,
    Trait,
)
from ...python import number
from ._table import TABLE

LARGEST = 3000
"""Assignments of a kernel. A network that needs more is faster as products of matrices."""

Label = str
"""The block axis that an axis of a value is, or nothing."""


Terms = Any
"""An array of NumPy whose entries are terms."""


class NoKernelError(Exception):
    """A program that no kernel computes. Says why."""


@dataclasses.dataclass(frozen=True)
class Term:
    """A variable, or a number."""

    text: str
    axes: frozenset[Label] = frozenset()
    """Block axes along which it has entries."""
    value: Any = None
    """A number of NumPy, if it is one."""


@dataclasses.dataclass(frozen=True)
class Array:
    """The terms of a value. Along its block axes the size is 1."""

    terms: Terms
    labels: tuple[Label, ...]


@dataclasses.dataclass(frozen=True)
class Grid:
    """The block axes of a kernel.

    **Arguments:**

    - `axes`: the labels of axes with a free size, by its name. An empty label is an axis that a kernel has no block
        axis for, because it computes one row.
    - `places`: for each label its place among the axes of a block.
    - `lane`: the size of the axis that follows the rows, which has the label `lane`, or 0.
    """

    axes: Mapping[str, Label]
    places: Mapping[Label, int]
    lane: int = 0

    def of_tensors(self, shape: Shape) -> list[Label]:
        """The labels of an array with a row for each tensor."""
        return [self.axes[size] if isinstance(size, str) else "" for size in shape]

    def label(self, shape: Shape, axis: int) -> Label:
        """The label of an axis of an array with a row for each chunk."""
        size = shape[axis]
        if isinstance(size, str):
            # The second one of two axes of one size is that of columns.
            is_second = size in shape[:axis]
            return "column" if is_second else self.axes[size]
        is_lane = self.lane and size == self.lane and axis > 0 and shape[axis - 1] == "rows"
        return "lane" if is_lane else ""


class Symbols:
    """Writes the assignments of programs, one after the other.

    **Arguments:**

    - `grid`: the block axes.
    - `names`: names of variables that are taken.
    """

    def __init__(self, grid: Grid, names: Names):
        self.grid = grid
        self.names = names
        self.lines: list[str] = []
        self.lanes: list[tuple[float, ...]] = []
        """Numbers that differ along the lanes."""

    def assign(self, name: str, text: str, axes: frozenset[Label]) -> Term:
        """A new variable."""
        if len(self.lines) >= LARGEST:
            raise NoKernelError("it is too large for a kernel")
        fresh = self.names.fresh(name.replace(".", "_"))
        self.lines.append(f"{fresh} = {text}")
        return Term(fresh, axes)

    def run(self, program: Program, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Adds the assignments of a program. Returns its outputs."""
        known: dict[Operand, Array] = {value: inputs[value.name] for value in program.inputs}
        known.update((value, _literals(program.arrays[value.name])) for value in program.weights)
        for equation in program.equations:
            operands = [self._operand(operand, known) for operand in equation.inputs]
            known[equation.output] = self._result(equation, operands)
        return {name: self._operand(operand, known) for name, operand in program.outputs}

    def _operand(self, operand: Operand, known: Mapping[Operand, Array]) -> Array:
        if isinstance(operand, Literal):
            return _literals(np.asarray(operand.value, operand.dtype))
        return known[operand]

    def _result(self, equation: Equation, inputs: list[Array]) -> Array:
        if has_trait(equation, Trait.ELEMENTWISE):
            return self._elementwise(equation, inputs)
        rule = _RULES.get(equation.primitive)
        if rule is None:
            raise NoKernelError(f"{equation.primitive} ({equation.source}) has no kernel")
        return rule(self, equation, inputs)

    def _elementwise(self, equation: Equation, inputs: list[Array]) -> Array:
        inputs = self._with_lanes(equation, inputs)
        labels = _common_labels(equation, inputs)
        arrays: Any = np.broadcast_arrays(*(array.terms for array in inputs))
        result = np.empty(arrays[0].shape, object)
        seen: dict[tuple[Term, ...], Term] = {}
        for place in np.ndindex(result.shape):
            terms = tuple(array[place] for array in arrays)
            if terms not in seen:
                seen[terms] = self._apply(equation, terms)
            result[place] = seen[terms]
        return Array(result, labels)

    def _with_lanes(self, equation: Equation, inputs: list[Array]) -> list[Array]:
        """The inputs of elementwise arithmetic, where weights along the lanes are blocks."""
        rank = len(equation.output.shape)
        if not self.grid.lane or rank < 2 or equation.output.shape[-2:] != ("rows", self.grid.lane):
            return inputs
        return [self._lanes(array) if _is_weight(array, self.grid.lane) else array for array in inputs]

    def _lanes(self, array: Array) -> Array:
        numbers = tuple(float(term.value) for term in array.terms.reshape(-1))
        if numbers not in self.lanes:
            self.lanes.append(numbers)
        text = (
            f"tl.load(lanes + {self.lanes.index(numbers) * self.grid.lane} + tl.arange(0, {self.grid.lane}))[None, :]"
        )
        term = self.assign("lane", text, frozenset({"lane"}))
        labels = ("",) * (array.terms.ndim - 1) + ("lane",)
        return Array(np.full((1,) * array.terms.ndim, term, object), labels)

    def _apply(self, equation: Equation, terms: Sequence[Term]) -> Term:
        dtype = equation.output.dtype
        if all(term.value is not None for term in terms):
            values = [term.value for term in terms]
            with np.errstate(all="ignore"):
                value = PRIMITIVES[equation.primitive].meaning(equation, values, ())
            return _literal(np.asarray(value).astype(dtype)[()])
        if equation.primitive == "convert" and equation.inputs[0].dtype == dtype:
            return terms[0]
        if equation.primitive not in TABLE:
            raise NoKernelError(f"{equation.primitive} ({equation.source}) has no kernel")
        text = TABLE[equation.primitive]([term.text for term in terms], equation.params)
        return self.assign(equation.output.name, text, frozenset().union(*(term.axes for term in terms)))

    # Rules for what is not elementwise.

    def _reduce(self, equation: Equation, inputs: list[Array]) -> Array:
        (array,) = inputs
        axes: tuple[int, ...] = equation.params["axes"]
        kind = equation.params["kind"]
        terms = array.terms
        for axis in sorted(axes, reverse=True):
            terms = self._reduced(equation, terms, axis, array.labels[axis], kind)
        kept = tuple(label for axis, label in enumerate(array.labels) if axis not in axes)
        return Array(terms, kept)

    def _reduced(self, equation: Equation, terms: Terms, axis: int, label: Label, kind: str) -> Terms:
        if equation.inputs[0].shape[axis] == "rows":
            raise NoKernelError(f"{equation.source} reduces rows")
        if label:
            return _each(np.take(terms, 0, axis), lambda term: self._along(equation, term, label, kind))
        parts = [np.take(terms, place, axis) for place in range(terms.shape[axis])]
        return self._fold(equation, {"sum": "add"}.get(kind, kind), parts)

    def _along(self, equation: Equation, term: Term, label: Label, kind: str) -> Term:
        """A term reduced along an axis of its block."""
        if label not in term.axes:
            if kind != "sum":
                return term
            if label != "lane":
                raise NoKernelError(f"{equation.source} sums one number many times")
            return self.assign(equation.output.name, f"{term.text} * {float(self.grid.lane)}", term.axes)
        text = f"tl.{kind}({term.text}, {self.grid.places[label]}, keep_dims=True)"
        return self.assign(equation.output.name, text, term.axes - {label})

    def _fold(self, equation: Equation, primitive: str, parts: Sequence[Terms]) -> Terms:
        """All parts in one, from the first to the last."""
        total = parts[0]
        step = dataclasses.replace(equation, primitive=primitive)
        for part in parts[1:]:
            total = _pairs(total, part, lambda left, right: self._apply(step, (left, right)))
        return total

    def _broadcast(self, equation: Equation, inputs: list[Array]) -> Array:
        (array,), shape = inputs, equation.output.shape
        offset = len(shape) - array.terms.ndim
        labels = []
        for axis, size in enumerate(shape):
            own = array.labels[axis - offset] if axis >= offset else ""
            labels.append(own or self.grid.label(shape, axis) if self._is_free(array, axis - offset, size) else own)
        sizes = [1 if label or isinstance(size, str) else size for size, label in zip(shape, labels, strict=True)]
        return Array(np.broadcast_to(array.terms, sizes), tuple(labels))

    def _is_free(self, array: Array, axis: int, size: int | str) -> bool:
        """Whether an axis of a result comes from repetition."""
        return axis < 0 or array.terms.shape[axis] == 1

    def _reshape(self, equation: Equation, inputs: list[Array]) -> Array:
        (array,), shape = inputs, equation.output.shape
        before = [(label, size) for label, size in zip(array.labels, equation.inputs[0].shape, strict=True)]
        wanted = _groups([(label, 1 if label or isinstance(size, str) else size) for label, size in before])
        named = [label for label in array.labels if label]
        ints = [axis for axis, size in enumerate(shape) if isinstance(size, int)]
        frees = [axis for axis, size in enumerate(shape) if isinstance(size, str)]
        count = sum(label == "lane" for label in named)
        for lanes in itertools.combinations([axis for axis in ints if shape[axis] == self.grid.lane], count):
            labels = ["" for _ in shape]
            for axis in lanes:
                labels[axis] = "lane"
            for axis in frees:
                labels[axis] = self.grid.label(shape, axis)
            sizes = [1 if label or isinstance(size, str) else size for size, label in zip(shape, labels, strict=True)]
            if _groups(list(zip(labels, sizes, strict=True))) == wanted:
                return Array(array.terms.reshape(sizes), tuple(labels))
        raise NoKernelError(f"{equation.source} mixes axes of a block")

    def _transpose(self, equation: Equation, inputs: list[Array]) -> Array:
        (array,), order = inputs, equation.params["permutation"]
        labels = tuple(array.labels[axis] for axis in order)
        if [label for label in labels if label] != [label for label in array.labels if label]:
            raise NoKernelError(f"{equation.source} turns a block")
        return Array(np.transpose(array.terms, order), labels)

    def _concatenate(self, equation: Equation, inputs: list[Array]) -> Array:
        axis = equation.params["axis"]
        labels = _common_labels(equation, inputs)
        if labels[axis]:
            raise NoKernelError(f"{equation.source} joins blocks")
        return Array(np.concatenate([array.terms for array in inputs], axis=axis), labels)

    def _slice(self, equation: Equation, inputs: list[Array]) -> Array:
        (array,), axis = inputs, equation.params["axis"]
        if array.labels[axis]:
            raise NoKernelError(f"{equation.source} cuts a block")
        places = range(equation.params["start"], equation.params["stop"])
        return Array(np.take(array.terms, places, axis), array.labels)

    def _index(self, equation: Equation, inputs: list[Array]) -> Array:
        (array,), axis = inputs, equation.params["axis"]
        if array.labels[axis]:
            raise NoKernelError(f"{equation.source} cuts a block")
        labels = (*array.labels[:axis], *array.labels[axis + 1 :])
        return Array(np.take(array.terms, equation.params["place"], axis), labels)

    def _einsum(self, equation: Equation, inputs: list[Array]) -> Array:
        if any("column" in array.labels for array in inputs):
            return self._product_of_tiles(equation, [], inputs)
        letters, result = einsum_letters(equation)
        return self._contraction(equation, letters, result, inputs)

    def _contraction(self, equation: Equation, letters: list[str], result: str, inputs: list[Array]) -> Array:
        sizes: dict[str, int] = {}
        labels: dict[str, Label] = {}
        for own, array in zip(letters, inputs, strict=True):
            for letter, size, label in zip(own, array.terms.shape, array.labels, strict=True):
                sizes[letter] = max(size, sizes.get(letter, 1))
                labels[letter] = labels.get(letter) or label
        if any(label and sizes[letter] > 1 for letter, label in labels.items()):
            raise NoKernelError(f"{equation.source} mixes axes of a block")
        inner = [letter for letter in dict.fromkeys("".join(letters)) if letter not in result]
        along = [letter for letter in inner if labels[letter]]
        places = [letter for letter in inner if not labels[letter]]
        if math.prod(sizes[letter] for letter in {*places, *result}) > LARGEST:
            raise NoKernelError(f"{equation.source} is too large for a kernel")
        terms = np.empty([sizes[letter] for letter in result], object)
        for outer in np.ndindex(terms.shape):
            parts = []
            for summed in np.ndindex(*(sizes[letter] for letter in places)):
                at = dict(zip((*result, *places, *along), (*outer, *summed, *(0 for _ in along)), strict=True))
                factors = [
                    np.asarray(
                        array.terms[tuple(min(at[k], n - 1) for k, n in zip(own, array.terms.shape, strict=True))]
                    )
                    for own, array in zip(letters, inputs, strict=True)
                ]
                parts.append(self._fold(equation, "mul", factors))
            total = self._fold(equation, "add", parts)[()]
            for letter in along:
                total = self._along(equation, total, labels[letter], "sum")
            terms[outer] = total
        return Array(terms, tuple(labels[letter] for letter in result))

    def _add_product(self, equation: Equation, inputs: list[Array]) -> Array:
        return self._product_of_tiles(equation, inputs[:1], inputs[1:])

    def _product_of_tiles(self, equation: Equation, start: list[Array], factors: list[Array]) -> Array:
        """A product of two matrices, or such a product with multiples of it and of another matrix."""
        turned = matrix_product(equation.params["subscripts"])
        if turned is None:
            raise NoKernelError(f"{equation.source} is no product of two matrices")
        texts = [
            f"tl.trans({array.terms.item().text})" if is_turned else array.terms.item().text
            for array, is_turned in zip(factors, turned, strict=True)
        ]
        axes = frozenset({"row", "column"})
        shape = equation.output.shape
        labels = tuple("" if size == "rows" else ("row", "column")[axis - 1] for axis, size in enumerate(shape))
        if start:
            alpha, beta = (float(equation.params[key]) for key in ("alpha", "beta"))
            ratio = str(np.float32(beta / alpha))
            text = f"add_dot({start[0].terms.item().text} * {ratio}, {', '.join(texts)}, PRECISION)"
            text = text if alpha == 1 else f"{text} * {np.float32(alpha)}"
        else:
            text = f"dot({', '.join(texts)}, PRECISION)"
        return Array(np.full((1,) * len(shape), self.assign(equation.output.name, text, axes), object), labels)


_RULES: Mapping[str, Callable[[Symbols, Equation, list[Array]], Array]] = {
    "reduce": Symbols._reduce,
    "broadcast": Symbols._broadcast,
    "reshape": Symbols._reshape,
    "transpose": Symbols._transpose,
    "concatenate": Symbols._concatenate,
    "slice": Symbols._slice,
    "index": Symbols._index,
    "einsum": Symbols._einsum,
    "add_product": Symbols._add_product,
}


def _literal(value: Any) -> Term:
    return Term(number(Literal(value.item(), str(value.dtype))), value=value)


def _literals(values: Any) -> Array:
    terms = np.empty(values.shape, object)
    for place in np.ndindex(values.shape):
        terms[place] = _literal(values[place])
    return Array(terms, ("",) * values.ndim)


def _is_weight(array: Array, lane: int) -> bool:
    """Whether an array is one number for each lane."""
    is_row = array.terms.ndim > 0 and array.terms.shape[-1] == array.terms.size == lane
    return is_row and all(term.value is not None for term in array.terms.reshape(-1))


def _each(terms: Terms, function: Callable[[Term], Term]) -> Terms:
    result = np.empty(terms.shape, object)
    for place in np.ndindex(terms.shape):
        result[place] = function(terms[place])
    return result


def _pairs(left: Terms, right: Terms, function: Callable[[Any, Any], Term]) -> Terms:
    both: Any = np.broadcast_arrays(left, right)
    result = np.empty(both[0].shape, object)
    for place in np.ndindex(*result.shape):
        result[place] = function(both[0][place], both[1][place])
    return result


def _entry(array: Array, letters: str, at: Mapping[str, int]) -> Terms:
    """The term at these places of the letters, as an array without axes."""
    place = tuple(min(at[letter], size - 1) for letter, size in zip(letters, array.terms.shape, strict=True))
    return np.asarray(array.terms[place])


def _common_labels(equation: Equation, inputs: Sequence[Array]) -> tuple[Label, ...]:
    """The labels of an elementwise result."""
    rank = max(array.terms.ndim for array in inputs)
    padded = [("",) * (rank - len(array.labels)) + array.labels for array in inputs]
    sizes = [(1,) * (rank - array.terms.ndim) + array.terms.shape for array in inputs]
    result = []
    for axis in range(rank):
        found = {labels[axis] for labels in padded if labels[axis]}
        if len(found) > 1 or (found and any(size[axis] > 1 for size in sizes)):
            raise NoKernelError(f"{equation.source} mixes axes of a block")
        result.append(found.pop() if found else "")
    return tuple(result)


def _groups(axes: Sequence[tuple[Label, int]]) -> list[Label | int]:
    """Labels, and between them the numbers of places of the other axes."""
    groups: list[Label | int] = [1]
    for label, size in axes:
        if label:
            groups.extend((label, 1))
        else:
            last = groups[-1]
            assert isinstance(last, int)
            groups[-1] = last * size
    return groups
