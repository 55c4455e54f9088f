"""The models of the onnx target: phases, the first step's inputs, terms of the network's sums, and the step."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...program import Dim, Program, TILE
from ...step import group_of
from ..one_tensor import AXES, CHUNKS, COUNTERS, share_outputs, Signature, step_outputs
from ._blocks import divided_up
from ._builder import Builder, graph_input, Rows, typed
from ._primitives import TABLE
from ._tensor import sizes_of, Tensor


def phase_graph(program: Program) -> ir.Graph:
    """A phase over any number of rows, and of tiles of any size."""
    b = Builder(TABLE)
    inputs = {value.name: graph_input(value.name, value.shape, value.dtype) for value in program.inputs}
    sizes = {
        size: b.op("Shape", inputs[value.name], start=axis, end=axis + 1)
        for value in program.inputs
        for axis, size in enumerate(value.shape)
        if isinstance(size, str)
    }
    rows = Rows("rows", sizes["rows"], {size: sizes[size] for size in TILE if size in sizes})
    outputs = b.call(program, inputs, rows)
    # Names are unique in a graph, so an output with the name of an input is renamed.
    graph_outputs = {f"next.{name}" if name in inputs else name: value for name, value in outputs.items()}
    return b.graph(program.name, inputs.values(), graph_outputs)


def init_graph(signature: Signature) -> ir.Graph:
    """Computes the inputs of a tensor's first step."""
    b = Builder(TABLE)
    param = graph_input("param", AXES)
    batch, rows, columns = sizes_of(b, param)
    per_row = divided_up(b, columns, b.ints(signature.compiled.chunk_length))
    counts = {AXES: b.op("Shape", param), (CHUNKS,): b.op("Mul", b.op("Mul", batch, rows), per_row)}
    outputs: dict[str, ir.Value] = {}
    for name, shape in signature.carried.items():
        if group_of(name) == "memory":
            inner = tuple(size for size in shape if isinstance(size, int))
            count = counts[shape[: len(shape) - len(inner)]]
            size = b.op("Concat", count, b.ints(*inner), axis=0) if inner else count
            value = b.op("Expand", b.constant(0, np.float32), size)
        elif group_of(name) == "state":
            key = name.removeprefix("state.")
            value = b.op("Identity", b.initializer(f"initial.{key}", signature.compiled.initial_state[key]))
        else:
            value = b.op("Identity", b.constant(0, np.int64))
        outputs[name] = typed(value, shape, _dtype(name))
    return b.graph(signature.path("init"), [param], outputs)


def share_graph(signature: Signature) -> ir.Graph:
    """One tensor's terms of the sums over the network's tensors."""
    b, inputs = Builder(TABLE), _inputs(signature.share_inputs)
    return b.graph(signature.path("share"), inputs.values(), share_outputs(Tensor(b, signature, inputs)))


def step_graph(signature: Signature) -> ir.Graph:
    """The whole step of one tensor, block after block."""
    b, inputs = Builder(TABLE), _inputs(signature.inputs)
    return b.graph(signature.path("update"), inputs.values(), step_outputs(Tensor(b, signature, inputs)))


def _inputs(shapes: Mapping[str, Sequence[Dim]]) -> dict[str, ir.Value]:
    return {name: graph_input(name, shape, _dtype(name)) for name, shape in shapes.items()}


def _dtype(name: str) -> str:
    """Dtype of an input or output of the step; a slot of bfloat16 is in float32 here."""
    return "int64" if name in COUNTERS else "float32"
