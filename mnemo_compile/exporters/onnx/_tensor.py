"""One tensor in a model: its coordinates as chunks, which the step processes in blocks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ...program import CompiledCell, Program
from ...step import Phase
from ..one_tensor import AbstractTensor, COUNTERS, is_per_chunk, memory, network, NUMBERS, SIZES, state
from ._builder import Builder, Rows, typed

LARGEST_BLOCK = 1 << 15
"""The most coordinates in a block."""
LARGEST_VALUE = 1 << 18
"""The most numbers in a block's widest intermediate result. Both bounds keep a block in a processor's cache."""


class Tensor(AbstractTensor[ir.Value]):
    """Nodes of the step of one tensor.

    **Arguments:**

    - `b`: the builder that records the nodes.
    - `compiled`: the cell.
    - `inputs`: the graph's inputs, by name.
    """

    def __init__(self, b: Builder, compiled: CompiledCell, inputs: Mapping[str, ir.Value]):
        self.b = b
        self.compiled = compiled
        self.inputs = inputs
        self.length = compiled.chunk_length
        self.count = self._size("count", b.op("Shape", inputs["grad"]))
        self.chunks = self._size("chunks", divided_up(b, self.count, b.ints(self.length)))
        blocks = self._size("blocks", divided_up(b, self.chunks, b.ints(_block_chunks(compiled))))
        # Blocks of the same size, so that there is little padding.
        per_block = divided_up(b, self.chunks, blocks)
        self.block = Rows("block", self._size("block", per_block))
        self.block_size = self._size("block.size", b.op("Mul", per_block, b.ints(self.length)))
        zero, one = b.constant(0, np.int64), b.constant(1, np.int64)
        places = b.op("Range", zero, b.op("Squeeze", blocks, b.ints(0)), one)
        starts = b.op("Unsqueeze", b.op("Mul", places, self.block_size), b.ints(1))
        self.starts = typed(starts, ("blocks", 1), "int64", "block.starts")
        self.arrays = [name for name in ("param", "grad", *memory(compiled)) if name in inputs]
        """Inputs that have an entry per coordinate or per chunk."""
        self.rows = self._rows()
        self._sample: tuple[dict[str, ir.Value], Rows] | None = None

    def of_tensor(self, phase: Phase) -> dict[str, ir.Value]:
        return self.b.call(self._program(phase), self.rows, Rows(1, self.b.ints(1)))

    def total(self, phase: Phase) -> dict[str, ir.Value]:
        if phase.rows == "sample":
            chunks, count = self._sampled()
            return _summed(self.b, self.b.call(self._program(phase), {**self.rows, **chunks}, count))
        program = self._program(phase)
        shapes = {name: [1, *operand.shape[1:]] for name, operand in program.outputs}

        def body(start: ir.Value, sums: Mapping[str, ir.Value]) -> tuple[dict[str, ir.Value], list[ir.Value]]:
            results = _summed(self.b, self._call_block(program, start))
            added = {name: self.b.op("Add", value, results[name]) for name, value in sums.items()}
            return {
                name: typed(value, shapes[name], name=f"{program.name}.{name}.after") for name, value in added.items()
            }, []

        zeros = {name: self.b.constant(np.zeros(shape), np.float32) for name, shape in shapes.items()}
        sums, _ = self.b.scan(program.name, self.starts, zeros, body)
        return {name: typed(value, shapes[name], name=name) for name, value in sums.items()}

    def advance(self, phase: Phase) -> dict[str, ir.Value]:
        program = self._program(phase)

        def body(start: ir.Value, _: Mapping[str, ir.Value]) -> tuple[dict[str, ir.Value], list[ir.Value]]:
            return {}, list(self._call_block(program, start).values())

        _, collected = self.b.scan(program.name, self.starts, {}, body)
        results = {}
        for (name, operand), value in zip(program.outputs, collected, strict=True):
            inner, is_chunks = self._inner(name), is_per_chunk(self.compiled, name)
            typed(value, ("blocks", "block", *operand.shape[1:]), name=f"blocks.{name}")
            flat = typed(self.b.op("Reshape", value, self.b.ints(-1, *inner)), ("padded", *inner))
            stop = self.chunks if is_chunks else self.count
            values = self.b.op("Slice", flat, self.b.ints(0), stop, self.b.ints(0))
            results[name] = typed(values, (SIZES["chunk" if is_chunks else "coordinate"], *inner))
        return results

    def all_finite(self, values: Sequence[ir.Value]) -> ir.Value:
        b = self.b
        flat = [b.op("Reshape", value, b.ints(-1)) for value in values]
        is_small = b.op("Less", b.op("Abs", b.op("Concat", *flat, axis=0)), b.constant(np.inf, np.float32))
        ones = b.op("Cast", is_small, to=int(ir.DataType.FLOAT))
        return typed(b.op("ReduceMin", ones, b.ints(0), keepdims=1), (1,), name="finite.row")

    def without_row(self, name: str, row: ir.Value) -> ir.Value:
        shapes = {**state(self.compiled), **network(self.compiled)}
        return typed(self.b.op("Squeeze", row, self.b.ints(0)), shapes[name])

    def counters(self, finite: ir.Value) -> dict[str, ir.Value]:
        b = self.b
        increment = b.op("Cast", b.op("Squeeze", finite, b.ints(0)), to=int(ir.DataType.INT64))
        refused = b.op("Sub", b.constant(1, np.int64), increment)
        return {
            "next.step": typed(b.op("Add", self.inputs["step"], increment), (), "int64"),
            "next.skipped": typed(b.op("Add", self.inputs["skipped"], refused), (), "int64"),
            "finite": typed(b.op("Cast", increment, to=int(ir.DataType.BOOL)), (), "bool"),
        }

    def _program(self, phase: Phase) -> Program:
        return self.compiled.programs[phase.name]

    def _rows(self) -> dict[str, ir.Value]:
        """The inputs of the tensor as a whole, with one row each."""
        b, inputs = self.b, self.inputs
        rows: dict[str, ir.Value] = {}
        for name, row in NUMBERS.items():
            if name in inputs:
                value = b.op("Cast", inputs[name], to=int(ir.DataType.FLOAT)) if name in COUNTERS else inputs[name]
                rows[row] = typed(b.op("Unsqueeze", value, b.ints(0)), (1,))
        rows["shape.coordinates"] = typed(b.op("Cast", self.count, to=int(ir.DataType.FLOAT)), (1,))
        for name in (*state(self.compiled), *network(self.compiled)):
            if name in inputs:
                rows[name] = typed(b.op("Unsqueeze", inputs[name], b.ints(0)), (1, *whole(inputs[name].shape)))
        for name, value in rows.items():
            value.name = f"row.{name}"
        return rows

    def _call_block(self, program: Program, start: ir.Value) -> dict[str, ir.Value]:
        """A phase over the block that starts at a coordinate."""
        names = {value.name for value in program.inputs}
        chunks = {name: self._block(name, start) for name in self.arrays if name in names}
        if "valid" in names:
            chunks["valid"] = self._valid(start)
        return self.b.call(program, {**self.rows, **chunks}, self.block)

    def _sampled(self) -> tuple[dict[str, ir.Value], Rows]:
        """The evenly spaced sample of chunks, the mask of their coordinates, and the number of chunks."""
        if self._sample is not None:
            return self._sample
        b = self.b
        zero, one = b.constant(0, np.int64), b.constant(1, np.int64)
        size = self._size("sample", b.op("Min", self.chunks, b.ints(self.compiled.sample_chunks)))
        numbers = b.op("Range", zero, b.op("Squeeze", size, b.ints(0)), one)
        picks = b.op("Div", b.op("Mul", numbers, self.chunks), size)
        firsts = b.op("Unsqueeze", b.op("Mul", picks, b.ints(self.length)), b.ints(1))
        places = b.op("Add", firsts, b.ints(*range(self.length)))
        shape = ("sample", self.length)
        valid = typed(b.op("Less", places, self.count), shape, "bool", "sample.valid")
        inside = typed(b.op("Min", places, b.op("Sub", self.count, b.ints(1))), shape, "int64", "sample.places")
        chunks = {"valid": valid}
        for name in self.arrays:
            inner = self._inner(name)
            if is_per_chunk(self.compiled, name):
                gathered = b.op("Gather", self.inputs[name], picks, axis=0)
                chunks[name] = typed(gathered, ("sample", *inner), name=f"sample.{name}")
                continue
            gathered = typed(b.op("Gather", self.inputs[name], inside, axis=0), (*shape, *inner))
            mask = b.op("Unsqueeze", valid, b.ints(*range(2, 2 + len(inner)))) if inner else valid
            values = b.op("Where", mask, gathered, b.constant(0, np.float32))
            chunks[name] = typed(values, (*shape, *inner), name=f"sample.{name}")
        self._sample = chunks, Rows("sample", size)
        return self._sample

    def _block(self, name: str, start: ir.Value) -> ir.Value:
        """A block of an array, in rows of chunks, the last one padded with zeros."""
        b, inner, is_chunks = self.b, self._inner(name), is_per_chunk(self.compiled, name)
        first = b.op("Div", start, b.ints(self.length)) if is_chunks else start
        size = self.block.number if is_chunks else self.block_size
        values = b.op("Slice", self.inputs[name], first, b.op("Add", first, size), b.ints(0))
        missing = b.op("Sub", size, b.op("Shape", values, start=0, end=1))
        before, after = b.ints(*(0,) * (1 + len(inner))), b.ints(*(0,) * len(inner))
        padded = b.op("Pad", values, b.op("Concat", before, missing, *([after] if inner else []), axis=0))
        if is_chunks:
            return typed(padded, ("block", *inner), name=f"block.{name}")
        chunks = b.op("Reshape", padded, b.ints(-1, self.length, *inner))
        return typed(chunks, ("block", self.length, *inner), name=f"block.{name}")

    def _valid(self, start: ir.Value) -> ir.Value:
        """The places of a block that hold a coordinate."""
        b = self.b
        size = b.op("Squeeze", self.block_size, b.ints(0))
        places = b.op("Range", b.constant(0, np.int64), size, b.constant(1, np.int64))
        is_inside = b.op("Less", b.op("Add", places, start), self.count)
        chunks = b.op("Reshape", is_inside, b.ints(-1, self.length))
        return typed(chunks, ("block", self.length), "bool", "block.valid")

    def _inner(self, name: str) -> list[int]:
        """Shape of an entry of an array."""
        return whole(self.inputs[name].shape)[1:]

    def _size(self, name: str, value: ir.Value) -> ir.Value:
        return typed(value, (1,), "int64", name)


def whole(shape: ir.Shape | None) -> list[Any]:
    """A shape's sizes; free sizes stay symbolic."""
    assert shape is not None
    return [size if isinstance(size, int) else size.value for size in shape]


def divided_up(b: Builder, count: ir.Value, size: ir.Value) -> ir.Value:
    """count / size, rounded up."""
    return b.op("Div", b.op("Sub", b.op("Add", count, size), b.ints(1)), size)


def _block_chunks(compiled: CompiledCell) -> int:
    """The most chunks in a block."""
    shapes = [
        equation.output.shape
        for phase in compiled.plan
        if phase.rows == "chunks" and phase.reduce is None
        for equation in compiled.programs[phase.name].equations
    ]
    widest = max(math.prod(size for size in shape if isinstance(size, int)) for shape in shapes)
    return max(min(LARGEST_BLOCK // compiled.chunk_length, LARGEST_VALUE // widest), 1)


def _summed(b: Builder, values: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
    """Rows of chunks, summed to one row."""
    totals = {}
    for name, value in values.items():
        total = b.op("ReduceSum", value, b.ints(0), keepdims=1)
        totals[name] = typed(total, (1, *whole(value.shape)[1:]), name=f"sum.{name}")
    return totals
