"""The tiles of a tensor, one after the other."""

from collections.abc import Sequence

import onnx_ir as ir

from ...program import TILE
from ._blocks import divided_up, numbered, padded
from ._builder import Builder, Rows, typed


class Tiles:
    """How a batch of matrices is cut into tiles, as `Tiling` says.

    ONNX has no transpose of which only the model's input decides whether it happens. But a transpose of 1 × n turns
    nothing, so a tile becomes either height × width or 1 × (height · width) before it is transposed.

    **Arguments:**

    - `b`: the builder that records the nodes.
    - `sizes`: the batch, rows and columns of the tensor, each of shape (1,).
    - `largest`: the largest side of a tile.
    """

    def __init__(self, b: Builder, sizes: Sequence[ir.Value], largest: int):
        self.b = b
        batch, self.matrix_rows, self.matrix_columns = sizes
        self.down = divided_up(b, self.matrix_rows, b.ints(largest))
        self.across = divided_up(b, self.matrix_columns, b.ints(largest))
        self.height = divided_up(b, self.matrix_rows, self.down)
        self.width = divided_up(b, self.matrix_columns, self.across)
        self.batch = batch
        self.is_turned = b.op("Greater", self.height, self.width)
        self.area = b.op("Mul", self.height, self.width)
        short, long = b.op("Min", self.height, self.width), b.op("Max", self.height, self.width)
        self.sides = [typed(short, (1,), "int64", "tile.rows"), typed(long, (1,), "int64", "tile.columns")]
        self.rows = Rows("tile", b.ints(1), dict(zip(TILE, self.sides, strict=True)))
        self.per_matrix = b.op("Mul", self.down, self.across)
        self.numbers = numbered(b, b.op("Mul", batch, self.per_matrix), "tiles")

    def cut(self, array: ir.Value, number: ir.Value) -> ir.Value:
        """A tile of an array, padded with zeros."""
        b = self.b
        whole = padded(b, self._part(array, number), [b.ints(1), self.height, self.width], ())
        turned = self._turned(whole, self.height, self.width)
        shape = b.op("Concat", b.ints(1), *self.sides, axis=0)
        return typed(b.op("Reshape", turned, shape), ("tile", *TILE))

    def side(self, array: ir.Value, number: ir.Value) -> ir.Value:
        """The longer side of a tile of an array, without padding."""
        b, part = self.b, self._part(array, number)
        longer = b.op("Max", b.op("Shape", part, start=1, end=2), b.op("Shape", part, start=2, end=3))
        return typed(b.op("Cast", longer, to=int(ir.DataType.FLOAT)), ("tile",))

    def restored(self, tile: ir.Value) -> ir.Value:
        """A tile as it lies in its matrix."""
        b = self.b
        shape = b.op("Concat", self.height, self.width, axis=0)
        return typed(b.op("Reshape", self._turned(tile, *self.sides), shape), ("height", "width"))

    def join(self, tiles: ir.Value) -> ir.Value:
        """The array that has these tiles, each as it lies in its matrix."""
        b = self.b
        grid = b.op("Concat", self.batch, self.down, self.across, self.height, self.width, axis=0)
        by_rows = b.op("Transpose", b.op("Reshape", tiles, grid), perm=(0, 1, 3, 2, 4))
        padded_rows, padded_columns = b.op("Mul", self.down, self.height), b.op("Mul", self.across, self.width)
        matrices = b.op("Reshape", by_rows, b.op("Concat", self.batch, padded_rows, padded_columns, axis=0))
        ends = b.op("Concat", self.matrix_rows, self.matrix_columns, axis=0)
        return b.op("Slice", matrices, b.ints(0, 0), ends, b.ints(1, 2))

    def _part(self, array: ir.Value, number: ir.Value) -> ir.Value:
        """The part of an array that a tile covers."""
        b = self.b
        matrix, place = b.op("Div", number, self.per_matrix), b.op("Mod", number, self.per_matrix)
        top = b.op("Mul", b.op("Div", place, self.across), self.height)
        left = b.op("Mul", b.op("Mod", place, self.across), self.width)
        starts = b.op("Concat", matrix, top, left, axis=0)
        ends = b.op("Add", starts, b.op("Concat", b.ints(1), self.height, self.width, axis=0))
        return b.op("Slice", array, starts, ends, b.ints(0, 1, 2))

    def _turned(self, tile: ir.Value, rows: ir.Value, columns: ir.Value) -> ir.Value:
        """The numbers of a tile of these sizes, in the order of its transpose if tiles are turned."""
        b = self.b
        height = b.op("Where", self.is_turned, rows, b.ints(1))
        width = b.op("Where", self.is_turned, columns, self.area)
        return b.op("Transpose", b.op("Reshape", tile, b.op("Concat", height, width, axis=0)), perm=(1, 0))
