"""Small feature axes taken apart, so that a phase is arithmetic on coordinates and one loop computes all of it."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...program import cse, dce, Dim, Equation, Literal, Operand, Program, Value

LARGEST = 1024
"""Products that one contraction may become. Above that a loop over coordinates is slower than a product of matrices."""

_ELEMENTWISE = frozenset(
    ("neg", "abs", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "tanh", "sin", "cos", "erf", "floor", "sign")
    + ("is_finite", "not", "add", "sub", "mul", "div", "max", "min", "pow", "gt", "ge", "eq", "and", "or")
    + ("select", "convert", "to_bfloat16", "broadcast")
)
_FOLDS = {"sum": "add", "max": "max", "min": "min"}


def unroll(program: Program, weights: Mapping[str, np.ndarray]) -> Program:
    """Takes apart what is stacked along the first axis.

    A value of shape `[k, rows, …]` that a concatenation makes becomes k values of shape `[rows, …]`; arithmetic on it
    becomes k times the arithmetic, and a contraction over it a sum of products. Inputs and outputs stay as they are,
    and so does what cannot be taken apart.

    An entry of a weight that is taken apart becomes a literal. As an array it would be read and put aside again for
    every few coordinates, there being more of them than a processor has registers.
    """
    unrolling = _Unrolling(weights)
    for equation in program.equations:
        unrolling.add(equation)
    outputs = tuple((name, unrolling.whole(operand)) for name, operand in program.outputs)
    result = dataclasses.replace(program, equations=tuple(unrolling.equations), outputs=outputs)
    return dataclasses.replace(dce(cse(result)), inputs=program.inputs)


def is_pointwise(program: Program) -> bool:
    """Whether one loop over the coordinates computes all of it, but for sums that are taken of each row."""
    for equation in program.equations:
        is_wide = any("rows" in operand.shape for operand in equation.inputs)
        if is_wide and equation.primitive in ("einsum", "concatenate"):
            return False
        if is_wide and equation.primitive == "reduce" and not _is_of_rows(equation, program):
            return False
    return True


def _is_of_rows(equation: Equation, program: Program) -> bool:
    """Whether what is reduced ends as numbers of a row, and is not spread over coordinates again."""
    reached: set[Operand] = {equation.output}
    for other in program.equations:
        if reached.intersection(other.inputs):
            if math.prod(s for s in other.output.shape if s != "rows" and isinstance(s, int)) > 1:
                return False
            reached.update(other.outputs)
    return True


class _Unrolling:
    """A program while it is taken apart."""

    def __init__(self, weights: Mapping[str, np.ndarray]):
        self.equations: list[Equation] = []
        self._weights = weights
        self._parts: dict[Operand, list[Operand]] = {}
        """For what is taken apart, what it became."""
        self._replaced: dict[Operand, Operand] = {}
        self._makers: dict[Operand, Equation] = {}
        self._count = itertools.count()

    def add(self, equation: Equation) -> None:
        inputs = tuple(self._replaced.get(operand, operand) for operand in equation.inputs)
        equation = dataclasses.replace(equation, inputs=inputs)
        parts = self._apart(equation)
        if parts is None:
            self._append(dataclasses.replace(equation, inputs=tuple(map(self.whole, inputs))))
        elif isinstance(parts, list):
            self._parts[equation.output] = parts
        else:
            self._replaced[equation.output] = parts

    def whole(self, operand: Operand) -> Operand:
        """An operand in one piece."""
        operand = self._replaced.get(operand, operand)
        parts = self._parts.get(operand)
        if parts is None or not isinstance(operand, Value) or operand in self._makers:
            return operand
        source = self._makers[parts[0]].source if parts[0] in self._makers else ""
        rows = tuple(self._emit("reshape", (p,), (1, *p.shape), operand.dtype, operand.name, source) for p in parts)
        self._append(Equation("concatenate", rows, (operand,), {"axis": 0}, source))
        return operand

    def _append(self, equation: Equation) -> None:
        self.equations.append(equation)
        self._makers.update((output, equation) for output in equation.outputs)

    def _emit(
        self,
        primitive: str,
        inputs: tuple[Operand, ...],
        shape: Sequence[Dim],
        dtype: str,
        name: str,
        source: str,
        **params: Any,
    ) -> Value:
        output = Value(f"{name}.{next(self._count)}", tuple(shape), dtype)
        self._append(Equation(primitive, inputs, (output,), params, source))
        return output

    def _entry(self, weight: Value, name: str, places: Mapping[str, int]) -> Operand:
        """One number of a weight."""
        array = self._weights[weight.name]
        return Literal(array[tuple(places[letter] for letter in name)].item(), weight.dtype)

    def _part(self, operand: Operand, index: int, source: str, axis: int = 0) -> Operand:
        """One place along an axis, without the axis."""
        if axis == 0 and operand in self._parts:
            return self._parts[operand][index]
        assert isinstance(operand, Value)
        maker = self._makers.get(operand)
        if axis == 0 and maker is not None and maker.primitive == "reshape" and operand.shape[0] == 1:
            if maker.inputs[0].shape == operand.shape[1:]:
                return maker.inputs[0]
        shape = list(operand.shape)
        if shape[axis] != 1:
            shape[axis] = 1
            places = {"axis": axis, "start": index, "stop": index + 1}
            operand = self._emit("slice", (operand,), shape, operand.dtype, operand.name, source, **places)
        del shape[axis]
        return self._emit("reshape", (operand,), shape, operand.dtype, operand.name, source)

    def _apart(self, equation: Equation) -> "list[Operand] | Operand | None":
        """What an equation's output becomes: parts, another operand, or None where it stays."""
        output, source = equation.output, equation.source
        is_stack = len(output.shape) > 1 and isinstance(output.shape[0], int) and "rows" in output.shape[1:]
        if equation.primitive == "concatenate":
            if equation.params["axis"] != 0 or not is_stack:
                return None
            return [
                self._part(operand, i, source) for operand in equation.inputs for i in range(_length(operand.shape))
            ]
        if not any(operand in self._parts for operand in equation.inputs):
            return None
        if equation.primitive == "einsum":
            return self._contraction(equation)
        first = self._parts.get(equation.inputs[0], [])
        name, dtype, params = output.name, output.dtype, dict(equation.params)
        if equation.primitive in _ELEMENTWISE:
            return self._elementwise(equation) if is_stack else None
        if equation.primitive == "slice":
            if params["axis"] == 0:
                return first[params["start"] : params["stop"]]
            params["axis"] -= 1
        elif equation.primitive == "reshape":
            if len(first) == 1 and output.shape == equation.inputs[0].shape[1:]:
                return first[0]
            if not is_stack or output.shape[0] != len(first):
                return None
        elif equation.primitive == "transpose":
            if params["permutation"][0] != 0:
                return None
            params["permutation"] = tuple(axis - 1 for axis in params["permutation"][1:])
        elif equation.primitive == "reduce":
            if params["axes"] == (0,):
                return self._fold(_FOLDS[params["kind"]], first, equation)
            if 0 in params["axes"]:
                return None
            params["axes"] = tuple(axis - 1 for axis in params["axes"])
        else:
            return None
        return [self._emit(equation.primitive, (p,), output.shape[1:], dtype, name, source, **params) for p in first]

    def _elementwise(self, equation: Equation) -> list[Operand] | None:
        output = equation.output
        rank = len(output.shape)
        if any(operand in self._parts and len(operand.shape) != rank for operand in equation.inputs):
            return None

        def of(operand: Operand, index: int) -> Operand:
            if len(operand.shape) < rank:
                return operand
            return self._part(operand, index if operand.shape[0] != 1 else 0, equation.source)

        return [
            self._emit(
                equation.primitive,
                tuple(of(operand, index) for operand in equation.inputs),
                output.shape[1:],
                output.dtype,
                output.name,
                equation.source,
                **equation.params,
            )
            for index in range(_length(output.shape))
        ]

    def _fold(self, primitive: str, parts: Sequence[Operand], equation: Equation) -> Operand:
        """All parts in one, from the first to the last."""
        total = parts[0]
        for part in parts[1:]:
            shape = total.shape if len(total.shape) >= len(part.shape) else part.shape
            shape = tuple(b if a == 1 else a for a, b in itertools.zip_longest(shape, part.shape, fillvalue=1))
            total = self._emit(
                primitive, (total, part), shape, equation.output.dtype, equation.output.name, equation.source
            )
        return total

    def _contraction(self, equation: Equation) -> "list[Operand] | Operand | None":
        """A contraction over taken-apart axes and small matrices, as sums of products."""
        subscripts, _, result = equation.params["subscripts"].partition("->")
        letters = subscripts.split(",")
        sizes = {k: s for name, o in zip(letters, equation.inputs, strict=True) for k, s in zip(name, o.shape)}
        loose = {name[0] for name, o in zip(letters, equation.inputs, strict=True) if o in self._parts}
        # A matrix has no row and is taken apart in all of its axes.
        for name, operand in zip(letters, equation.inputs, strict=True):
            if "rows" not in operand.shape:
                loose.update(name)
        kept = [letter for letter in result if letter in loose]
        summed = sorted(loose - set(kept))
        rest = [letter for letter in result if letter not in loose]
        remaining = [[letter for letter in name if letter not in loose] for name in letters]
        is_small = all(isinstance(sizes[k], int) for k in loose)
        if not is_small or math.prod(int(sizes[k]) for k in loose) > LARGEST:
            return None
        if kept not in ([], [result[:1]]):
            return None
        if any([k for k in rest if k in left] != left for left in remaining):
            return None
        ranges = [range(int(sizes[k])) for k in summed]
        totals = [
            self._fold(
                "add",
                [
                    self._product(equation, letters, dict(zip((*kept, *summed), (*outer, *inner), strict=True)), rest)
                    for inner in itertools.product(*ranges)
                ],
                equation,
            )
            for outer in itertools.product(*(range(int(sizes[k])) for k in kept))
        ]
        return totals if kept else totals[0]

    def _product(self, equation: Equation, letters: list[str], places: dict[str, int], rest: list[str]) -> Operand:
        """The product of the operands at these places of the loose axes."""
        factors = []
        for name, operand in zip(letters, equation.inputs, strict=True):
            if isinstance(operand, Value) and operand.name in self._weights and operand not in self._makers:
                factors.append(self._entry(operand, name, places))
                continue
            left = list(name)
            while any(letter in places for letter in left):
                axis = next(i for i, letter in enumerate(left) if letter in places)
                operand = self._part(operand, places[left.pop(axis)], equation.source, axis)
            factors.append(self._aligned(operand, left, rest, equation))
        factors.sort(key=lambda factor: isinstance(factor, Literal))
        product = factors[0]
        for factor in factors[1:]:
            shape = max(product.shape, factor.shape, key=len)
            if len(product.shape) == len(factor.shape):
                shape = tuple(b if a == 1 else a for a, b in zip(product.shape, factor.shape, strict=True))
            product = self._emit(
                "mul", (product, factor), shape, equation.output.dtype, equation.output.name, equation.source
            )
        return product

    def _aligned(self, operand: Operand, letters: list[str], rest: list[str], equation: Equation) -> Operand:
        """The operand with its axes where the result has them."""
        if not letters or letters == rest:
            return operand
        sizes = dict(zip(letters, operand.shape, strict=True))
        shape = [sizes.get(letter, 1) for letter in rest]
        return self._emit("reshape", (operand,), shape, operand.dtype, equation.output.name, equation.source)


def _length(shape: Sequence[Dim]) -> int:
    assert isinstance(shape[0], int)
    return shape[0]
