"""The chunks of a tensor in blocks of the same size, one after the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ._builder import Builder, Rows, typed


class Blocks:
    """How the chunks of a tensor are cut into blocks.

    Chunks restart after each run of coordinates. A block holds the chunks of several whole runs, or several chunks of
    one run, and none has more padding than it must.

    **Arguments:**

    - `b`: the builder that records the nodes.
    - `sizes`: the batch, rows and columns of the tensor, each of shape (1,).
    - `length`: coordinates of a chunk.
    - `most`: the most chunks of a block.
    """

    def __init__(self, b: Builder, sizes: Sequence[ir.Value], length: int, most: int):
        self.b = b
        self.length = length
        batch, rows, columns = sizes
        area = b.op("Mul", rows, columns)
        everything = b.op("Mul", batch, area)
        self.coordinates = _size("coordinates", everything)
        longer = b.op("Where", self._fills(area), area, everything)
        self.run = _size("run", b.op("Where", self._fills(columns), columns, longer))
        self.runs = _size("runs", b.op("Div", everything, self.run))
        self.per_run = _size("chunks.per.run", divided_up(b, self.run, b.ints(length)))
        self.chunks = _size("chunks", b.op("Mul", self.runs, self.per_run))
        self.bound = _size(
            "chunks.bound", b.op("Mul", b.op("Mul", batch, rows), divided_up(b, columns, b.ints(length)))
        )
        # If a run has several blocks, a block has more than half of the chunks that it may have.
        self.parts = _size("blocks.per.run", divided_up(b, self.per_run, b.ints(most)))
        self.across = _size("block.across", divided_up(b, self.per_run, self.parts))
        bands = divided_up(b, self.runs, b.op("Div", b.ints(most), self.across))
        self.down = _size("block.down", divided_up(b, self.runs, bands))
        self.width = _size("block.width", b.op("Mul", self.across, b.ints(length)))
        self.rows = Rows("block", _size("block", b.op("Mul", self.down, self.across)))
        self.numbers = numbered(b, b.op("Mul", bands, self.parts), "blocks")

    def chunk_entries(self, array: ir.Value, number: ir.Value) -> ir.Value:
        """A block of an array that has an entry per chunk, padded with zeros."""
        b, inner = self.b, whole(array.shape)[1:]
        run, chunk = self._corner(number)
        first = b.op("Add", b.op("Mul", run, self.per_run), chunk)
        end_of_runs = b.op("Mul", b.op("Add", run, self.down), self.per_run)
        end = b.op("Min", b.op("Add", first, self.rows.number), end_of_runs, self.chunks)
        values = b.op("Slice", array, first, end, b.ints(0))
        return typed(padded(b, values, [self.rows.number], inner), ("block", *inner))

    def cut(self, array: ir.Value, number: ir.Value) -> ir.Value:
        """A block of an array that has an entry per coordinate, in rows of chunks, padded with zeros."""
        b, inner = self.b, whole(array.shape)[3:]
        run, chunk = self._corner(number)
        flat = b.op("Reshape", array, b.op("Concat", self.runs, self.run, *self._ints(inner), axis=0))
        place = b.op("Mul", chunk, b.ints(self.length))
        starts = b.op("Concat", run, place, axis=0)
        ends = b.op("Concat", b.op("Add", run, self.down), b.op("Add", place, self.width), axis=0)
        values = b.op("Slice", flat, starts, ends, b.ints(0, 1))
        whole_block = padded(b, values, [self.down, self.width], inner)
        chunks = b.op("Reshape", whole_block, b.ints(-1, self.length, *inner))
        return typed(chunks, ("block", self.length, *inner))

    def valid(self, number: ir.Value) -> ir.Value:
        """The places of a block that hold a coordinate."""
        _, chunk = self._corner(number)
        place = self.b.op("Mul", chunk, self.b.ints(self.length))
        inside = self._inside(number, self._range(self.width), place, self.run)
        return typed(self.b.op("Reshape", inside, self.b.ints(-1, self.length)), ("block", self.length), "bool")

    def exists(self, number: ir.Value) -> ir.Value:
        """The chunks of a block that the tensor has."""
        _, chunk = self._corner(number)
        inside = self._inside(number, self._range(self.across), chunk, self.per_run)
        return typed(self.b.op("Reshape", inside, self.b.ints(-1)), ("block",), "bool")

    def join(self, blocks: ir.Value, inner: Sequence[int], shape: ir.Value) -> ir.Value:
        """The array of this shape, with an entry per coordinate, that has these blocks."""
        b = self.b
        row = b.op("Mul", self.parts, self.width)
        flat = b.op("Reshape", blocks, b.op("Concat", b.ints(-1), row, *self._ints(inner), axis=0))
        values = b.op("Slice", flat, b.ints(0, 0), b.op("Concat", self.runs, self.run, axis=0), b.ints(0, 1))
        return b.op("Reshape", values, b.op("Concat", shape, *self._ints(inner), axis=0))

    def join_entries(self, blocks: ir.Value, inner: Sequence[int]) -> ir.Value:
        """The array, with an entry per chunk and zeros at the end, that has these blocks."""
        b = self.b
        row = b.op("Mul", self.parts, self.across)
        flat = b.op("Reshape", blocks, b.op("Concat", b.ints(-1), row, *self._ints(inner), axis=0))
        values = b.op("Slice", flat, b.ints(0, 0), b.op("Concat", self.runs, self.per_run, axis=0), b.ints(0, 1))
        return padded(b, b.op("Reshape", values, b.ints(-1, *inner)), [self.bound], inner)

    def sample(self, most: int) -> "Sample":
        """At most so many evenly spaced chunks."""
        return Sample(self, most)

    def _fills(self, size: ir.Value) -> ir.Value:
        return self.b.op("GreaterOrEqual", size, self.b.ints(self.length))

    def _corner(self, number: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The first run of a block, and its first chunk in that run."""
        b = self.b
        run = b.op("Mul", b.op("Div", number, self.parts), self.down)
        return run, b.op("Mul", b.op("Mod", number, self.parts), self.across)

    def _inside(self, number: ir.Value, places: ir.Value, first: ir.Value, count: ir.Value) -> ir.Value:
        """For each run of a block and each of the places from the first, whether the tensor has it."""
        b = self.b
        run, _ = self._corner(number)
        runs = b.op("Less", b.op("Add", self._range(self.down), run), self.runs)
        return b.op("And", b.op("Unsqueeze", runs, b.ints(1)), b.op("Less", b.op("Add", places, first), count))

    def _range(self, count: ir.Value) -> ir.Value:
        return counted(self.b, count)

    def _ints(self, sizes: Sequence[int]) -> list[ir.Value]:
        return [self.b.ints(*sizes)] if sizes else []


class Sample:
    """Evenly spaced chunks of a tensor."""

    def __init__(self, blocks: Blocks, most: int):
        b = self.b = blocks.b
        self.length = blocks.length
        size = _size("sample", b.op("Min", blocks.chunks, b.ints(most)))
        self.rows = Rows("sample", size)
        self.picks = b.op("Div", b.op("Mul", counted(b, size), blocks.chunks), size)
        first = b.op("Mul", b.op("Mod", self.picks, blocks.per_run), b.ints(self.length))
        places = b.op("Add", b.op("Unsqueeze", first, b.ints(1)), b.ints(*range(self.length)))
        start = b.op("Mul", b.op("Div", self.picks, blocks.per_run), blocks.run)
        inside = b.op("Min", places, b.op("Sub", blocks.run, b.ints(1)))
        shape = ("sample", self.length)
        self.valid = typed(b.op("Less", places, blocks.run), shape, "bool", "sample.valid")
        coordinates = b.op("Add", inside, b.op("Unsqueeze", start, b.ints(1)))
        self.coordinates = typed(coordinates, shape, "int64", "sample.coordinates")

    def chunk_entries(self, array: ir.Value) -> ir.Value:
        """The sample of an array that has an entry per chunk."""
        return typed(self.b.op("Gather", array, self.picks, axis=0), ("sample", *whole(array.shape)[1:]))

    def cut(self, array: ir.Value) -> ir.Value:
        """The sample of an array that has an entry per coordinate."""
        b, inner = self.b, whole(array.shape)[3:]
        shape = ("sample", self.length, *inner)
        flat = b.op("Reshape", array, b.ints(-1, *inner))
        gathered = typed(b.op("Gather", flat, self.coordinates, axis=0), shape)
        mask = b.op("Unsqueeze", self.valid, b.ints(*range(2, 2 + len(inner)))) if inner else self.valid
        return typed(b.op("Where", mask, gathered, b.constant(0, np.float32)), shape)


def whole(shape: ir.Shape | None) -> list[Any]:
    """A shape's sizes; free sizes stay symbolic."""
    assert shape is not None
    return [size if isinstance(size, int) else size.value for size in shape]


def divided_up(b: Builder, count: ir.Value, size: ir.Value) -> ir.Value:
    """count / size, rounded up."""
    return b.op("Div", b.op("Sub", b.op("Add", count, size), b.ints(1)), size)


def counted(b: Builder, count: ir.Value) -> ir.Value:
    """The numbers from 0 to below a count."""
    return b.op("Range", b.constant(0, np.int64), b.op("Squeeze", count, b.ints(0)), b.constant(1, np.int64))


def numbered(b: Builder, count: ir.Value, name: str) -> ir.Value:
    """The same numbers as rows of one, over which a loop can run."""
    return typed(b.op("Unsqueeze", counted(b, count), b.ints(1)), (name, 1), "int64", f"{name}.numbers")


def padded(b: Builder, values: ir.Value, sizes: Sequence[ir.Value], inner: Sequence[int]) -> ir.Value:
    """An array with zeros at the ends of its first axes, so that they have these sizes."""
    missing = b.op("Sub", b.op("Concat", *sizes, axis=0), b.op("Shape", values, start=0, end=len(sizes)))
    before = b.ints(*(0,) * (len(sizes) + len(inner)))
    after = [b.ints(*(0,) * len(inner))] if inner else []
    return b.op("Pad", values, b.op("Concat", before, missing, *after, axis=0))


def _size(name: str, value: ir.Value) -> ir.Value:
    return typed(value, (1,), "int64", name)
