"""Small feature axes taken apart, so that a phase is arithmetic on coordinates and one loop computes all of it."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .._primitives import broadcast_shapes, einsum_letters, einsum_sizes, has_trait, Trait
from .._program import Dim, Equation, Literal, Operand, Program, Shape, Value
from .._rewrite import Replacement, Rewriter
from ._cse import cse
from ._dce import dce

LARGEST = 1024
"""Products that one contraction may become. Above that a loop over coordinates is slower than a product of matrices."""

_FOLDS = {"sum": "add", "max": "max", "min": "min"}
"""What makes one of two parts, for each kind of reduction."""

Parts = list[Operand]
"""What a stacked value becomes, by place along its first axis."""


def unstack(program: Program) -> Program:
    """Takes apart what is stacked along the first axis.

    A value of shape `[k, rows, …]` that a concatenation makes becomes k values of shape `[rows, …]`; arithmetic on it
    becomes k times the arithmetic, and a contraction over it a sum of products. Inputs and outputs stay as they are,
    and so does what cannot be taken apart.

    An entry of a weight that is taken apart becomes a literal. As an array it would be read and put aside again for
    every few coordinates, there being more of them than a processor has registers.
    """
    unstacking = _Unstacking(program)
    rewriter = unstacking.rewriter
    for equation in program.equations:
        rewriter.add(equation, unstacking.rule)
    outputs = [(name, unstacking.whole(rewriter.current(operand))) for name, operand in program.outputs]
    return dataclasses.replace(dce(cse(rewriter.result(outputs))), inputs=program.inputs)


class _Unstacking:
    """A program while it is taken apart."""

    def __init__(self, program: Program):
        self.rewriter = Rewriter(program)
        self._parts: dict[Operand, Parts] = {}
        self._count = itertools.count()

    def rule(self, rewriter: Rewriter, equation: Equation) -> Replacement:
        result = self._apart(equation)
        if result is None:
            return dataclasses.replace(equation, inputs=tuple(map(self.whole, equation.inputs)))
        if isinstance(result, list):
            self._parts[equation.output] = result
            return equation.output
        return result

    def whole(self, operand: Operand) -> Operand:
        """An operand in one piece."""
        parts = self._parts.get(operand)
        if parts is None or not isinstance(operand, Value) or operand in self.rewriter.producers:
            return operand
        producer = self.rewriter.producers.get(parts[0])
        source = "" if producer is None else producer.source
        rows = tuple(self._emit(operand, source, "reshape", (part,), (1, *part.shape)) for part in parts)
        self.rewriter.append(Equation("concatenate", rows, (operand,), {"axis": 0}, source))
        return operand

    def _emit(
        self,
        like: Operand,
        source: str,
        primitive: str,
        inputs: tuple[Operand, ...],
        shape: Sequence[Dim],
        **params: Any,
    ) -> Value:
        """Adds an equation whose result has the name and the dtype of another value; returns the result."""
        base = like.name if isinstance(like, Value) else primitive
        name = self.rewriter.names.fresh(f"{base}.{next(self._count)}")
        output = Value(name, tuple(shape), like.dtype)
        self.rewriter.append(Equation(primitive, inputs, (output,), params, source))
        return output

    def _entry(self, weight: Value, letters: str, places: Mapping[str, int]) -> Operand:
        """One number of a weight."""
        array = self.rewriter.arrays[weight.name]
        return Literal(array[tuple(places[letter] for letter in letters)].item(), weight.dtype)

    def _part(self, operand: Operand, index: int, source: str, axis: int = 0) -> Operand:
        """One place along an axis, without the axis."""
        if axis == 0 and operand in self._parts:
            return self._parts[operand][index]
        reshape = self.rewriter.producer(operand, "reshape")
        if axis == 0 and reshape is not None and operand.shape[0] == 1:
            if reshape.inputs[0].shape == operand.shape[1:]:
                return reshape.inputs[0]
        shape = list(operand.shape)
        if shape[axis] != 1:
            shape[axis] = 1
            operand = self._emit(operand, source, "slice", (operand,), shape, axis=axis, start=index, stop=index + 1)
        del shape[axis]
        return self._emit(operand, source, "reshape", (operand,), shape)

    def _apart(self, equation: Equation) -> Parts | Operand | None:
        """What an equation's output becomes: parts, another operand, or None where it stays."""
        if equation.primitive == "concatenate":
            return self._concatenation(equation)
        if not any(operand in self._parts for operand in equation.inputs):
            return None
        if equation.primitive == "einsum":
            return self._contraction(equation)
        # A broadcast that says its shape is arithmetic like the rest.
        if has_trait(equation, Trait.ELEMENTWISE) or equation.primitive == "broadcast":
            return self._elementwise(equation) if _is_stack(equation.output) else None
        parts = self._parts.get(equation.inputs[0])
        return None if parts is None else self._of_each(equation, parts)

    def _concatenation(self, equation: Equation) -> Parts | None:
        if equation.params["axis"] != 0 or not _is_stack(equation.output):
            return None
        return [
            self._part(operand, i, equation.source)
            for operand in equation.inputs
            for i in range(_length(operand.shape))
        ]

    def _of_each(self, equation: Equation, parts: Parts) -> Parts | Operand | None:
        """The same equation on each part."""
        output, params = equation.output, dict(equation.params)
        match equation.primitive:
            case "slice":
                if params["axis"] == 0:
                    return parts[params["start"] : params["stop"]]
                params["axis"] -= 1
            case "reshape":
                if len(parts) == 1 and output.shape == equation.inputs[0].shape[1:]:
                    return parts[0]
                if not _is_stack(output) or output.shape[0] != len(parts):
                    return None
            case "transpose":
                if params["permutation"][0] != 0:
                    return None
                params["permutation"] = tuple(axis - 1 for axis in params["permutation"][1:])
            case "reduce":
                if params["axes"] == (0,):
                    return self._fold(_FOLDS[params["kind"]], parts, equation)
                if 0 in params["axes"]:
                    return None
                params["axes"] = tuple(axis - 1 for axis in params["axes"])
            case _:
                return None
        shape = output.shape[1:]
        return [self._emit(output, equation.source, equation.primitive, (part,), shape, **params) for part in parts]

    def _elementwise(self, equation: Equation) -> Parts | None:
        output = equation.output
        rank = len(output.shape)
        if any(operand in self._parts and len(operand.shape) != rank for operand in equation.inputs):
            return None

        def at(operand: Operand, index: int) -> Operand:
            if len(operand.shape) < rank:
                return operand
            return self._part(operand, index if operand.shape[0] != 1 else 0, equation.source)

        return [
            self._emit(
                output,
                equation.source,
                equation.primitive,
                tuple(at(operand, index) for operand in equation.inputs),
                output.shape[1:],
                **equation.params,
            )
            for index in range(_length(output.shape))
        ]

    def _fold(self, primitive: str, parts: Sequence[Operand], equation: Equation) -> Operand:
        """All parts in one, from the first to the last."""
        total = parts[0]
        for part in parts[1:]:
            shape = broadcast_shapes([total.shape, part.shape])
            total = self._emit(equation.output, equation.source, primitive, (total, part), shape)
        return total

    def _contraction(self, equation: Equation) -> Parts | Operand | None:
        """A contraction over taken-apart axes and small matrices, as sums of products."""
        letters, result = einsum_letters(equation)
        sizes = einsum_sizes(equation)
        loose = {name[0] for name, o in zip(letters, equation.inputs, strict=True) if o in self._parts}
        # A matrix has no row and is taken apart in all of its axes.
        for name, operand in zip(letters, equation.inputs, strict=True):
            if "rows" not in operand.shape:
                loose.update(name)
        outer = [letter for letter in result if letter in loose]
        inner = sorted(loose - set(outer))
        rest = [letter for letter in result if letter not in loose]
        remaining = [[letter for letter in name if letter not in loose] for name in letters]
        ranges = {letter: range(size) for letter in loose if isinstance(size := sizes[letter], int)}
        if len(ranges) < len(loose) or math.prod(map(len, ranges.values())) > LARGEST:
            return None
        if outer not in ([], [result[:1]]):
            return None
        if any([k for k in rest if k in left] != left for left in remaining):
            return None
        totals = [
            self._fold(
                "add",
                [
                    self._product(equation, dict(zip((*outer, *inner), (*first, *second), strict=True)), rest)
                    for second in itertools.product(*(ranges[k] for k in inner))
                ],
                equation,
            )
            for first in itertools.product(*(ranges[k] for k in outer))
        ]
        return totals if outer else totals[0]

    def _product(self, equation: Equation, places: Mapping[str, int], rest: list[str]) -> Operand:
        """The product of the operands at these places of the loose axes."""
        factors: list[Operand] = []
        for name, operand in zip(einsum_letters(equation)[0], equation.inputs, strict=True):
            if isinstance(operand, Value) and operand.name in self.rewriter.arrays:
                factors.append(self._entry(operand, name, places))
                continue
            left = list(name)
            while any(letter in places for letter in left):
                axis = next(i for i, letter in enumerate(left) if letter in places)
                operand = self._part(operand, places[left.pop(axis)], equation.source, axis)
            factors.append(self._aligned(operand, left, rest, equation))
        factors.sort(key=lambda factor: isinstance(factor, Literal))
        return self._fold("mul", factors, equation)

    def _aligned(self, operand: Operand, letters: list[str], rest: list[str], equation: Equation) -> Operand:
        """The operand with its axes where the result has them."""
        if not letters or letters == rest:
            return operand
        sizes = dict(zip(letters, operand.shape, strict=True))
        shape = [sizes.get(letter, 1) for letter in rest]
        return self._emit(equation.output, equation.source, "reshape", (operand,), shape)


def _is_stack(value: Value) -> bool:
    return len(value.shape) > 1 and isinstance(value.shape[0], int) and "rows" in value.shape[1:]


def _length(shape: Shape) -> int:
    length = shape[0] if shape else None
    assert isinstance(length, int)
    return length
