"""The models of the onnx target: phases, the first step's inputs, terms of the network's sums, and the step."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...program import CompiledCell, Dim, Program
from ...step import group_of
from ..one_tensor import carried, COUNTERS, share_inputs, share_outputs, step_inputs, step_outputs
from ._builder import Builder, graph_input, Rows, typed
from ._primitives import TABLE
from ._tensor import divided_up, Tensor


def phase_graph(program: Program) -> ir.Graph:
    """A phase over any number of rows."""
    b = Builder(TABLE)
    inputs = {value.name: graph_input(value.name, value.shape, value.dtype) for value in program.inputs}
    sized = next(inputs[value.name] for value in program.inputs if value.shape[:1] == ("rows",))
    outputs = b.call(program, inputs, Rows("rows", b.op("Shape", sized, start=0, end=1)))
    # Names are unique in a graph, so an output with the name of an input is renamed.
    graph_outputs = {f"next.{name}" if name in inputs else name: value for name, value in outputs.items()}
    return b.graph(program.name, inputs.values(), graph_outputs)


def init_graph(compiled: CompiledCell) -> ir.Graph:
    """Computes the inputs of a tensor's first step."""
    b = Builder(TABLE)
    param = graph_input("param", ("N",))
    count = b.op("Shape", param)
    sizes = {"N": count, "C": divided_up(b, count, b.ints(compiled.chunk_length))}
    outputs: dict[str, ir.Value] = {}
    for name, shape in carried(compiled).items():
        if group_of(name) == "memory":
            inner = [size for size in shape[1:] if isinstance(size, int)]
            size = b.op("Concat", sizes[str(shape[0])], b.ints(*inner), axis=0)
            value = b.op("Expand", b.constant(0, np.float32), size)
        elif group_of(name) == "state":
            key = name.removeprefix("state.")
            value = b.op("Identity", b.initializer(f"initial.{key}", compiled.initial_state[key]))
        else:
            value = b.op("Identity", b.constant(0, np.int64))
        outputs[name] = typed(value, shape, _dtype(name))
    return b.graph("init", [param], outputs)


def share_graph(compiled: CompiledCell) -> ir.Graph:
    """One tensor's terms of the sums over the network's tensors."""
    b, inputs = Builder(TABLE), _inputs(share_inputs(compiled))
    return b.graph("share", inputs.values(), share_outputs(Tensor(b, compiled, inputs)))


def step_graph(compiled: CompiledCell) -> ir.Graph:
    """The whole step of one tensor of N coordinates, block after block."""
    b, inputs = Builder(TABLE), _inputs(step_inputs(compiled))
    return b.graph("step", inputs.values(), step_outputs(Tensor(b, compiled, inputs)))


def _inputs(shapes: Mapping[str, Sequence[Dim]]) -> dict[str, ir.Value]:
    return {name: graph_input(name, shape, _dtype(name)) for name, shape in shapes.items()}


def _dtype(name: str) -> str:
    """Dtype of an input or output of the step; a slot of bfloat16 is in float32 here."""
    return "int64" if name in COUNTERS else "float32"
