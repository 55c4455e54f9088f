"""One tensor in a model: its chunks, which the step processes in blocks, the sample of them, and its tiles."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...program import Program
from ...step import Phase
from ..one_tensor import AbstractTensor, AXES, CHUNKS, COUNTERS, NUMBERS, Signature
from ._blocks import Blocks, Sample, whole
from ._builder import Builder, Rows, typed
from ._tiles import Tiles

LARGEST_BLOCK = 1 << 15
"""The most coordinates in a block."""
LARGEST_VALUE = 1 << 18
"""The most numbers in a block's widest intermediate result. Both bounds keep a block in a processor's cache."""


class Tensor(AbstractTensor[ir.Value]):
    """Nodes of the step of one tensor.

    **Arguments:**

    - `b`: the builder that records the nodes.
    - `signature`: of the tensor's kind.
    - `inputs`: the graph's inputs, by name.
    """

    def __init__(self, b: Builder, signature: Signature, inputs: Mapping[str, ir.Value]):
        self.b = b
        self.signature = signature
        self.compiled = signature.compiled
        self.inputs = inputs
        self.shape = typed(b.op("Shape", inputs["grad"]), (3,), "int64", "shape")
        self.sizes = sizes_of(b, inputs["grad"])
        self.blocks = Blocks(b, self.sizes, self.compiled.chunk_length, _block_chunks(signature))
        self.arrays = [name for name in ("param", "grad", *signature.memory) if name in inputs]
        """Inputs that have an entry per coordinate or per chunk."""
        self.rows = self._rows()
        self._sample: Sample | None = None

    def of_tensor(self, phase: Phase) -> dict[str, ir.Value]:
        return self.b.call(self._program(phase), self.rows, Rows(1, self.b.ints(1)))

    def total(self, phase: Phase) -> dict[str, ir.Value]:
        program = self._program(phase)
        if phase.rows == "sample":
            return self._total_of_sample(program)
        shapes = {name: [1, *operand.shape[1:]] for name, operand in program.outputs}

        def body(number: ir.Value, sums: Mapping[str, ir.Value]) -> tuple[dict[str, ir.Value], list[ir.Value]]:
            results = _summed(self.b, self._call_block(program, number), self.blocks.exists(number))
            added = {name: self.b.op("Add", value, results[name]) for name, value in sums.items()}
            return {
                name: typed(value, shapes[name], name=f"{program.name}.{name}.after") for name, value in added.items()
            }, []

        zeros = {name: self.b.constant(np.zeros(shape), np.float32) for name, shape in shapes.items()}
        sums, _ = self.b.scan(program.name, self.blocks.numbers, zeros, body)
        return {name: typed(value, shapes[name], name=name) for name, value in sums.items()}

    def advance(self, phase: Phase) -> dict[str, ir.Value]:
        program = self._program(phase)

        def body(number: ir.Value, _: Mapping[str, ir.Value]) -> tuple[dict[str, ir.Value], list[ir.Value]]:
            return {}, list(self._call_block(program, number).values())

        _, collected = self.b.scan(program.name, self.blocks.numbers, {}, body)
        results = {}
        for (name, operand), value in zip(program.outputs, collected, strict=True):
            typed(value, ("blocks", "block", *operand.shape[1:]), name=f"blocks.{name}")
            inner = self._inner(name)
            if self.signature.is_per_chunk(name):
                results[name] = typed(self.blocks.join_entries(value, inner), (CHUNKS, *inner))
            else:
                results[name] = typed(self.blocks.join(value, inner, self.shape), (*AXES, *inner))
        return results

    def advance_tiles(self, phases: Sequence[Phase]) -> dict[str, ir.Value]:
        b, tiles, names = self.b, Tiles(self.b, self.sizes, self.compiled.tile), ("param", *self.signature.memory)

        def body(number: ir.Value, _: Mapping[str, ir.Value]) -> tuple[dict[str, ir.Value], list[ir.Value]]:
            arrays = {name: tiles.cut(self.inputs[name], number) for name in self.arrays}
            arrays["tile.side"] = tiles.side(self.inputs["grad"], number)
            for name, value in arrays.items():
                value.name = f"tile.{name}"
            for phase in phases:
                arrays.update(b.call(self._program(phase), {**self.rows, **arrays}, tiles.rows))
            return {}, [tiles.restored(arrays[name]) for name in names]

        _, collected = b.scan(phases[-1].name, tiles.numbers, {}, body)
        return {
            name: typed(tiles.join(typed(value, ("tiles", "height", "width"), name=f"tiles.{name}")), AXES)
            for name, value in zip(names, collected, strict=True)
        }

    def all_finite(self, values: Sequence[ir.Value]) -> ir.Value:
        b = self.b
        flat = [b.op("Reshape", value, b.ints(-1)) for value in values]
        is_small = b.op("Less", b.op("Abs", b.op("Concat", *flat, axis=0)), b.constant(np.inf, np.float32))
        ones = b.op("Cast", is_small, to=int(ir.DataType.FLOAT))
        return typed(b.op("ReduceMin", ones, b.ints(0), keepdims=1), (1,), name="finite.row")

    def without_row(self, name: str, row: ir.Value) -> ir.Value:
        shapes = {**self.signature.state, **self.signature.network}
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
        b, inputs, signature = self.b, self.inputs, self.signature
        rows: dict[str, ir.Value] = {}
        for name, row in NUMBERS.items():
            if name in inputs:
                value = b.op("Cast", inputs[name], to=int(ir.DataType.FLOAT)) if name in COUNTERS else inputs[name]
                rows[row] = typed(b.op("Unsqueeze", value, b.ints(0)), (1,))
        _, matrix_rows, columns = self.sizes
        sizes = {
            "coordinates": self.blocks.coordinates,
            "area": b.op("Mul", matrix_rows, columns),
            "run": self.blocks.run,
        }
        for name, size in sizes.items():
            rows[f"shape.{name}"] = typed(b.op("Cast", size, to=int(ir.DataType.FLOAT)), (1,))
        for name in (*signature.state, *signature.network):
            if name in inputs:
                rows[name] = typed(b.op("Unsqueeze", inputs[name], b.ints(0)), (1, *whole(inputs[name].shape)))
        for name, value in rows.items():
            value.name = f"row.{name}"
        return rows

    def _call_block(self, program: Program, number: ir.Value) -> dict[str, ir.Value]:
        """A phase over the block of this number."""
        names = {value.name for value in program.inputs}
        chunks = self._missing_memory()
        for name in self.arrays:
            if name in names:
                cut = self.blocks.chunk_entries if self.signature.is_per_chunk(name) else self.blocks.cut
                chunks[name] = cut(self.inputs[name], number)
                chunks[name].name = f"block.{name}"
        if "valid" in names:
            chunks["valid"] = self.blocks.valid(number)
        return self.b.call(program, {**self.rows, **chunks}, self.blocks.rows)

    def _total_of_sample(self, program: Program) -> dict[str, ir.Value]:
        sample = self._sample = self._sample or self.blocks.sample(self.compiled.sample_chunks)
        chunks = {"valid": sample.valid, **self._missing_memory()}
        for name in self.arrays:
            cut = sample.chunk_entries if self.signature.is_per_chunk(name) else sample.cut
            chunks[name] = cut(self.inputs[name])
            chunks[name].name = f"sample.{name}"
        return _summed(self.b, self.b.call(program, {**self.rows, **chunks}, sample.rows))

    def _missing_memory(self) -> dict[str, ir.Value]:
        """One row of zeros for each array of memory that the tensor does not have."""
        return {
            name: self.b.constant(np.zeros((1, *shape)), np.float32)
            for name, shape in self.signature.missing_memory.items()
        }

    def _inner(self, name: str) -> list[int]:
        """Shape of an entry of an array."""
        return whole(self.inputs[name].shape)[1 if self.signature.is_per_chunk(name) else 3 :]


def sizes_of(b: Builder, array: ir.Value) -> list[ir.Value]:
    """The batch, the rows and the columns of an array."""
    return [
        typed(b.op("Shape", array, start=axis, end=axis + 1), (1,), "int64", name) for axis, name in enumerate(AXES)
    ]


def _block_chunks(signature: Signature) -> int:
    """The most chunks in a block."""
    compiled = signature.compiled
    shapes = [
        equation.output.shape
        for phase in signature.plan
        if phase.rows == "chunks"
        for equation in compiled.programs[phase.name].equations
    ]
    widest = max((math.prod(size for size in shape if isinstance(size, int)) for shape in shapes), default=1)
    return max(min(LARGEST_BLOCK // compiled.chunk_length, LARGEST_VALUE // widest), 1)


def _summed(b: Builder, values: Mapping[str, ir.Value], exists: ir.Value | None = None) -> dict[str, ir.Value]:
    """Rows of chunks, summed to one row. A row that is no chunk may hold anything, even NaN."""
    totals = {}
    for name, value in values.items():
        inner = whole(value.shape)[1:]
        if exists is not None:
            mask = b.op("Unsqueeze", exists, b.ints(*range(1, 1 + len(inner)))) if inner else exists
            value = b.op("Where", mask, value, b.constant(0, np.float32))
        total = b.op("ReduceSum", value, b.ints(0), keepdims=1)
        totals[name] = typed(total, (1, *inner), name=f"sum.{name}")
    return totals
