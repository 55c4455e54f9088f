"""The models of the onnx target: a phase, the first step's carried values, a tensor's share, and its whole step."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ...program import CompiledCell, Dim, Program
from ..one_tensor._shapes import (
    carried,
    COUNTERS,
    measures,
    memory,
    network,
    ROWS,
    share_inputs,
    SIZES,
    state,
    step_inputs,
    summarises,
)
from ._builder import Builder, graph_input, Rows, typed
from ._primitives import TABLE

LARGEST_BLOCK = 1 << 15
"""Coordinates that a step works on at a time, at most."""
LARGEST_VALUE = 1 << 18
"""Numbers of a block's widest intermediate result, at most. Both keep what is worked on in a processor's cache."""


def phase_graph(program: Program) -> ir.Graph:
    """A phase over any number of rows."""
    b = Builder(TABLE)
    inputs = {value.name: graph_input(value.name, value.shape, value.dtype) for value in program.inputs}
    sized = next(inputs[value.name] for value in program.inputs if value.shape[:1] == ("rows",))
    outputs = b.call(program, inputs, Rows("rows", b.op("Shape", sized, start=0, end=1)))
    # Names are unique in a graph, so what goes in and comes out is called otherwise when it comes out.
    named = {f"next.{name}" if name in inputs else name: value for name, value in outputs.items()}
    return b.graph(program.name, inputs.values(), named)


def dtype_of(name: str) -> str:
    """Of an input or output of the step; what is kept in bfloat16 is here in float32."""
    return "int64" if name in COUNTERS else "float32"


def init_graph(compiled: CompiledCell) -> ir.Graph:
    """From a tensor to what its first step is given."""
    b = Builder(TABLE)
    param = graph_input("param", ("N",))
    count = b.op("Shape", param)
    sizes = {"N": count, "C": _divided_up(b, count, b.ints(compiled.chunk_length))}
    outputs: dict[str, ir.Value] = {}
    for name, shape in carried(compiled).items():
        group, _, key = name.partition(".")
        if group == "memory":
            size = b.op("Concat", sizes[str(shape[0])], b.ints(*_whole(shape[1:])), axis=0)
            value = b.op("Expand", b.constant(0, np.float32), size)
        elif group == "state":
            value = b.op("Identity", b.initializer(f"initial.{key}", compiled.initial_state[key]))
        else:
            value = b.op("Identity", b.constant(0, np.int64))
        outputs[name] = typed(value, shape, dtype_of(name))
    return b.graph("init", [param], outputs)


def _given(shapes: Mapping[str, Sequence[Dim]]) -> dict[str, ir.Value]:
    return {name: graph_input(name, shape, dtype_of(name)) for name, shape in shapes.items()}


def share_graph(compiled: CompiledCell) -> ir.Graph:
    """One tensor's terms of the sums over the network's tensors."""
    b = Builder(TABLE)
    programs, given = compiled.programs, _given(share_inputs(compiled))
    tensor = _Tensor(b, compiled, given)
    rows = tensor.rows()
    # A block's constants would stay where its loop is removed.
    if measures(compiled):
        rows |= tensor.sum_blocks(programs["measure"])
    if summarises(compiled):
        chunks, count = tensor.sample()
        rows |= _summed(b, b.call(programs["encode"], {**rows, **chunks}, count))
    outputs = {}
    for name, value in b.call(programs["share"], rows, Rows(1, b.ints(1))).items():
        outputs[name] = typed(b.op("Squeeze", value, b.ints(0)), network(compiled)[name])
    return b.graph("share", given.values(), outputs)


def step_graph(compiled: CompiledCell) -> ir.Graph:
    """The whole step of one tensor of N coordinates, block after block."""
    b = Builder(TABLE)
    programs, given = compiled.programs, _given(step_inputs(compiled))
    tensor = _Tensor(b, compiled, given)
    rows = tensor.rows()

    moments = tensor.sum_blocks(programs["measure"])
    counted = _all_finite(b, [*moments.values(), *(rows[name] for name in network(compiled))])
    rows |= {
        **moments,
        "guard.finite": typed(b.op("Cast", counted, to=int(ir.DataType.FLOAT)), (1,), name="finite.row"),
    }

    # What nothing needs of the sample is removed with the other unused nodes.
    chunks, count = tensor.sample()
    recalled: dict[str, ir.Value] = {}
    if "encode" in programs:
        rows |= _summed(b, b.call(programs["encode"], {**rows, **chunks}, count))
    if "recall" in programs:
        recalled = b.call(programs["recall"], rows, Rows(1, b.ints(1)))
        rows |= {name: value for name, value in recalled.items() if name.startswith("context.")}
    if "probe" in programs:
        rows |= _summed(b, b.call(programs["probe"], {**rows, **chunks}, count))

    outputs = {f"next.{name}": value for name, value in tensor.update_blocks(programs["update"], rows).items()}
    for name, shape in state(compiled).items():
        outputs[f"next.{name}"] = typed(b.op("Squeeze", recalled[name], b.ints(0)), shape)
    took = b.op("Squeeze", counted, b.ints(0))
    refused = b.op("Sub", b.constant(1, np.int64), took)
    outputs["next.step"] = typed(b.op("Add", given["step"], took), (), "int64")
    outputs["next.skipped"] = typed(b.op("Add", given["skipped"], refused), (), "int64")
    outputs["finite"] = typed(b.op("Cast", took, to=int(ir.DataType.BOOL)), (), "bool")
    return b.graph("step", given.values(), outputs)


class _Tensor:
    """A tensor's coordinates as chunks, in blocks of as many as are worked on at a time."""

    def __init__(self, b: Builder, compiled: CompiledCell, given: Mapping[str, ir.Value]):
        self.b = b
        self.given = given
        self.length = compiled.chunk_length
        self.sample_chunks = compiled.sample_chunks
        self.tensors = [*state(compiled), *network(compiled)]
        """What is the tensor's, or the network's."""
        most = _block_chunks(compiled)
        self.count = self._named("count", b.op("Shape", given["grad"]))
        self.chunks = self._named("chunks", _divided_up(b, self.count, b.ints(self.length)))
        blocks = self._named("blocks", _divided_up(b, self.chunks, b.ints(most)))
        # Blocks of the same size, so that little is padded.
        per_block = _divided_up(b, self.chunks, blocks)
        self.block = Rows("block", self._named("block", per_block))
        self.block_size = self._named("block.size", b.op("Mul", per_block, b.ints(self.length)))
        zero, one = b.constant(0, np.int64), b.constant(1, np.int64)
        places = b.op("Range", zero, b.op("Squeeze", blocks, b.ints(0)), one)
        starts = b.op("Unsqueeze", b.op("Mul", places, self.block_size), b.ints(1))
        self.starts = typed(starts, ("blocks", 1), "int64", "block.starts")
        self.levels = {
            name: "chunk" if shape[:1] == ("C",) else "coordinate"
            for name, shape in {"param": ("N",), "grad": ("N",), **memory(compiled)}.items()
            if name in given
        }
        """Whose each array of rows is."""

    def _named(self, name: str, value: ir.Value) -> ir.Value:
        return typed(value, (1,), "int64", name)

    def rows(self) -> dict[str, ir.Value]:
        """What is known of the tensor before its step, as one row each."""
        b, given = self.b, self.given
        rows: dict[str, ir.Value] = {}
        for name, row in ROWS.items():
            if name in given:
                value = b.op("Cast", given[name], to=int(ir.DataType.FLOAT)) if name in COUNTERS else given[name]
                rows[row] = typed(b.op("Unsqueeze", value, b.ints(0)), (1,))
        rows["facts.coordinates"] = typed(b.op("Cast", self.count, to=int(ir.DataType.FLOAT)), (1,))
        for name in self.tensors:
            if name in given:
                rows[name] = typed(b.op("Unsqueeze", given[name], b.ints(0)), (1, *given[name].shape))
        for name, value in rows.items():
            value.name = f"row.{name}"
        return rows

    def sum_blocks(self, program: Program) -> dict[str, ir.Value]:
        """What a phase gives of the gradient, summed over all chunks."""
        shapes = {name: [1, *operand.shape[1:]] for name, operand in program.outputs}

        def body(start: ir.Value, sums: Mapping[str, ir.Value]) -> tuple[dict[str, ir.Value], list[ir.Value]]:
            results = _summed(self.b, self.b.call(program, {"grad": self._block("grad", start)}, self.block))
            added = {name: self.b.op("Add", value, results[name]) for name, value in sums.items()}
            return {
                name: typed(value, shapes[name], name=f"{program.name}.{name}.after") for name, value in added.items()
            }, []

        zeros = {name: self.b.constant(np.zeros(shape), np.float32) for name, shape in shapes.items()}
        sums, _ = self.b.scan(program.name, self.starts, zeros, body)
        return {name: typed(value, shapes[name], name=name) for name, value in sums.items()}

    def update_blocks(self, program: Program, rows: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
        """The next value of everything that coordinates and chunks have."""
        needed = {value.name for value in program.inputs}

        def body(start: ir.Value, sums: Mapping[str, ir.Value]) -> tuple[dict[str, ir.Value], list[ir.Value]]:
            chunks = {name: self._block(name, start) for name in self.levels if name in needed}
            if "valid" in needed:
                chunks["valid"] = self._valid(start)
            return {}, list(self.b.call(program, {**rows, **chunks}, self.block).values())

        _, collected = self.b.scan(program.name, self.starts, {}, body)
        results = {}
        for (name, operand), value in zip(program.outputs, collected, strict=True):
            inner, is_chunks = self._inner(name), self.levels[name] == "chunk"
            typed(value, ("blocks", "block", *operand.shape[1:]), name=f"blocks.{name}")
            flat = typed(self.b.op("Reshape", value, self.b.ints(-1, *inner)), ("padded", *inner))
            stop = self.chunks if is_chunks else self.count
            taken = self.b.op("Slice", flat, self.b.ints(0), stop, self.b.ints(0))
            results[name] = typed(taken, (SIZES[self.levels[name]], *inner))
        return results

    def sample(self) -> tuple[dict[str, ir.Value], Rows]:
        """The sampled chunks, evenly spaced, and which of their places hold a coordinate."""
        b = self.b
        zero, one = b.constant(0, np.int64), b.constant(1, np.int64)
        taken = self._named("sample", b.op("Min", self.chunks, b.ints(self.sample_chunks)))
        numbers = b.op("Range", zero, b.op("Squeeze", taken, b.ints(0)), one)
        picked = b.op("Div", b.op("Mul", numbers, self.chunks), taken)
        firsts = b.op("Unsqueeze", b.op("Mul", picked, b.ints(self.length)), b.ints(1))
        places = b.op("Add", firsts, b.ints(*range(self.length)))
        shape = ("sample", self.length)
        valid = typed(b.op("Less", places, self.count), shape, "bool", "sample.valid")
        inside = typed(b.op("Min", places, b.op("Sub", self.count, b.ints(1))), shape, "int64", "sample.places")
        chunks = {"valid": valid}
        for name, level in self.levels.items():
            inner = self._inner(name)
            if level == "chunk":
                gathered = b.op("Gather", self.given[name], picked, axis=0)
                chunks[name] = typed(gathered, ("sample", *inner), name=f"sample.{name}")
                continue
            gathered = typed(b.op("Gather", self.given[name], inside, axis=0), (*shape, *inner))
            present = b.op("Unsqueeze", valid, b.ints(*range(2, 2 + len(inner)))) if inner else valid
            chunks[name] = typed(
                b.op("Where", present, gathered, b.constant(0, np.float32)), (*shape, *inner), name=f"sample.{name}"
            )
        return chunks, Rows("sample", taken)

    def _block(self, name: str, start: ir.Value) -> ir.Value:
        """A block of chunks, or of what they have, the last one padded with zeros."""
        b, inner, is_chunks = self.b, self._inner(name), self.levels[name] == "chunk"
        first = b.op("Div", start, b.ints(self.length)) if is_chunks else start
        size = self.block.count if is_chunks else self.block_size
        taken = b.op("Slice", self.given[name], first, b.op("Add", first, size), b.ints(0))
        missing = b.op("Sub", size, b.op("Shape", taken, start=0, end=1))
        before, after = b.ints(*(0,) * (1 + len(inner))), b.ints(*(0,) * len(inner))
        padded = b.op("Pad", taken, b.op("Concat", before, missing, *([after] if inner else []), axis=0))
        if is_chunks:
            return typed(padded, ("block", *inner), name=f"block.{name}")
        chunks = b.op("Reshape", padded, b.ints(-1, self.length, *inner))
        return typed(chunks, ("block", self.length, *inner), name=f"block.{name}")

    def _valid(self, start: ir.Value) -> ir.Value:
        """Which places of a block hold a coordinate."""
        b = self.b
        size = b.op("Squeeze", self.block_size, b.ints(0))
        places = b.op("Range", b.constant(0, np.int64), size, b.constant(1, np.int64))
        holds = b.op("Less", b.op("Add", places, start), self.count)
        chunks = b.op("Reshape", holds, b.ints(-1, self.length))
        return typed(chunks, ("block", self.length), "bool", "block.valid")

    def _inner(self, name: str) -> list[int]:
        shape = self.given[name].shape
        assert shape is not None
        return _whole(shape[1:])


def _whole(shape: Sequence[Any]) -> list[int]:
    """A shape without free sizes."""
    return [int(size) for size in shape]


def _divided_up(b: Builder, count: ir.Value, size: ir.Value) -> ir.Value:
    """count / size, rounded up."""
    return b.op("Div", b.op("Sub", b.op("Add", count, size), b.ints(1)), size)


def _block_chunks(compiled: CompiledCell) -> int:
    """Chunks in a block, at most."""
    shapes = [equation.output.shape for equation in compiled.programs["update"].equations]
    widest = max(math.prod(size for size in shape if isinstance(size, int)) for shape in shapes)
    return max(min(LARGEST_BLOCK // compiled.chunk_length, LARGEST_VALUE // widest), 1)


def _summed(b: Builder, values: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
    """One row for all of them."""
    totals = {}
    for name, value in values.items():
        assert value.shape is not None
        total = b.op("ReduceSum", value, b.ints(0), keepdims=1)
        totals[name] = typed(total, (1, *value.shape[1:]), name=f"sum.{name}")
    return totals


def _all_finite(b: Builder, values: Iterable[ir.Value]) -> ir.Value:
    """1 where all numbers are finite, else 0; shape 1, int64."""
    flat = [b.op("Reshape", value, b.ints(-1)) for value in values]
    small = b.op("Less", b.op("Abs", b.op("Concat", *flat, axis=0)), b.constant(np.inf, np.float32))
    return typed(
        b.op("ReduceMin", b.op("Cast", small, to=int(ir.DataType.INT64)), b.ints(0), keepdims=1), (1,), "int64"
    )
