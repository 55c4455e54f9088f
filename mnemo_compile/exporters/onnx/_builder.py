"""Graphs for the onnx target: nodes on a tape, and a phase as nodes."""

import collections
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx_ir.passes import Sequential
from onnx_ir.tape import Tape

from ...errors import MnemoError
from ...frozen import FrozenCell
from ...program import Dim, Equation, has_trait, Literal, Operand, Program, Trait, unsupported

OPSET = 18
IR_VERSION = 8
"""The version that was released with the opset, so that any runtime with the opset can read the file."""

DTYPES = {
    "float32": ir.DataType.FLOAT,
    "float64": ir.DataType.DOUBLE,
    "int64": ir.DataType.INT64,
    "int32": ir.DataType.INT32,
    "bool": ir.DataType.BOOL,
}
"""The dtypes that every runtime supports."""

_ROWS = "rows"

Lowering = Callable[["Builder", Equation, list[ir.Value]], ir.Value]
"""Maps an equation and its inputs to the node that computes its output."""


class Rows(NamedTuple):
    """The number of rows of a phase."""

    name: Dim
    """The name of the free size, or 1."""
    number: ir.Value
    """The number as a value of shape (1,) and dtype int64."""
    others: Mapping[Dim, ir.Value] = MappingProxyType({})
    """The other free sizes of the phase, by name: those of a tile."""


def data_type(dtype: str, what: str) -> ir.DataType:
    """ONNX's name of a dtype. `what` names the array in the error for a dtype that this target lacks."""
    if dtype not in DTYPES:
        raise MnemoError(f"{what} is {dtype}, which the onnx target does not have; it has {', '.join(DTYPES)}")
    return DTYPES[dtype]


def typed(value: ir.Value, shape: Sequence[Dim], dtype: str = "float32", name: str | None = None) -> ir.Value:
    """The same value after its shape, its dtype and optionally its name have been set."""
    value.shape = ir.Shape(list(shape))
    value.dtype = data_type(dtype, f"the value {name or value.name}")
    value.name = name or value.name
    return value


def graph_input(name: str, shape: Sequence[Dim], dtype: str = "float32") -> ir.Value:
    """An input of a graph."""
    return ir.val(name, data_type(dtype, f"the input {name}"), list(shape))


class Builder:
    """Records the nodes of a graph. Each weight and each constant is one initializer.

    **Arguments:**

    - `table`: the lowering of each primitive.
    """

    def __init__(self, table: Mapping[str, Lowering]):
        self.main = Tape()
        """The tape of the graph itself."""
        self.tape = self.main
        """The tape that records now: that of the graph, or of a body while the body is built."""
        self.table = table
        self.initializers: dict[str, ir.Value] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.sizes: Mapping[Dim, ir.Value] = {}
        """The free sizes, other than the number of rows, of the phase that is being added."""

    def op(self, kind: str, *inputs: ir.Value, **attributes: int | str | Sequence[int]) -> ir.Value:
        """A node with one output, named after its kind."""
        self.counts[kind] += 1
        # A body may not reuse names of the graph around it.
        return self.tape.op(kind, inputs, attributes, output=ir.val(f"{kind}.{self.counts[kind]}"))

    def constant(self, value: object, dtype: npt.DTypeLike) -> ir.Value:
        """One or more numbers as an initializer."""
        array = np.asarray(value, dtype)
        text = "_".join(map(str, array.reshape(-1).tolist()))
        return self.initializer(f"constant.{array.dtype}.{array.ndim}.{text}", array)

    def ints(self, *values: int) -> ir.Value:
        """Sizes, axes or places as a vector of int64."""
        return self.constant(values, np.int64)

    def initializer(self, name: str, array: np.ndarray) -> ir.Value:
        """An array of the model, which is added once per name."""
        data_type(str(array.dtype), f"the weight {name}")
        if name not in self.initializers:
            self.initializers[name] = self.tape.initializer(ir.tensor(np.array(array, order="C"), name=name), name)
        return self.initializers[name]

    @contextlib.contextmanager
    def recording(self, tape: Tape) -> Iterator[None]:
        """Records nodes on this tape inside the block."""
        before, self.tape = self.tape, tape
        try:
            yield
        finally:
            self.tape = before

    def scan(
        self,
        name: str,
        each: ir.Value,
        carried: Mapping[str, ir.Value],
        body: Callable[[ir.Value, Mapping[str, ir.Value]], tuple[Mapping[str, ir.Value], Sequence[ir.Value]]],
    ) -> tuple[dict[str, ir.Value], list[ir.Value]]:
        """Nodes that run once for every row of `each`.

        **Arguments:**

        - `name`: the name of the loop.
        - `each`: the rows, of shape (times, 1) and dtype int64.
        - `carried`: the initial values of the loop's state, by name.
        - `body`: maps a row and the state to the next state and to outputs.

        **Returns:**

        The last state, and the outputs of all runs, stacked along a new first axis.
        """
        element = graph_input(f"{name}.each", (1,), "int64")
        states = {key: ir.val(f"{name}.{key}.before", value.dtype, value.shape) for key, value in carried.items()}
        tape = Tape()
        with self.recording(tape):
            results, collected = body(element, states)
        outputs = [*(results[key] for key in carried), *collected]
        graph = ir.Graph([*states.values(), element], outputs, nodes=tape.nodes, name=name)
        attributes = {"body": graph, "num_scan_inputs": 1}
        values = self.tape.op_multi_out(
            "Scan", [*carried.values(), each], attributes, num_outputs=len(outputs), name=name
        )
        return dict(zip(carried, values, strict=False)), list(values[len(carried) :])

    def call(self, program: Program, inputs: Mapping[str, ir.Value], rows: Rows) -> dict[str, ir.Value]:
        """Adds the nodes of a phase. Values that are the same in every row are computed once, outside of any body.

        **Arguments:**

        - `program`: the phase.
        - `inputs`: its inputs; others are ignored. An input with a single row is the same in every row.
        - `rows`: the number of rows.

        **Returns:**

        The outputs with all rows. Each is a separate value.
        """
        env: dict[Operand, ir.Value] = {value: inputs[value.name] for value in program.inputs}
        self.sizes = rows.others

        def read(operand: Operand) -> ir.Value:
            if isinstance(operand, Literal):
                return self.constant(operand.value, operand.dtype)
            return env[operand] if operand in env else self.initializer(operand.name, program.arrays[operand.name])

        for equation in program.equations:
            if equation.primitive not in self.table:
                raise unsupported(equation, "onnx", self.table)
            values = [read(operand) for operand in equation.inputs]
            many = any(_has_many(operand, value) for operand, value in zip(equation.inputs, values, strict=True))
            if many and has_trait(equation, Trait.ALIGNED):
                values = [self._expand(o, value, rows) for o, value in zip(equation.inputs, values, strict=True)]
            output = equation.output
            shape = [_size(size, rows.name if many else 1) for size in output.shape]
            with self.recording(self.tape if many else self.main):
                result = self.table[equation.primitive](self, equation, values)
            env[output] = typed(result, shape, output.dtype, f"{program.name}.{output.name}")
        outputs: dict[str, ir.Value] = {}
        for name, operand in program.outputs:
            value = self._expand(operand, read(operand), rows)
            is_new = value.producer() is not None and value not in outputs.values() and value not in inputs.values()
            outputs[name] = value if is_new else self.op("Identity", value)
            typed(outputs[name], [_size(size, rows.name) for size in operand.shape], operand.dtype)
        return outputs

    def _expand(self, operand: Operand, value: ir.Value, rows: Rows) -> ir.Value:
        """The value with its single row repeated."""
        if rows.name == 1 or _ROWS not in operand.shape or _has_many(operand, value):
            return value
        # Expanding keeps the axes of which the requested size is 1.
        sizes = [rows.number if size == _ROWS else self.ints(1) for size in operand.shape]
        repeated = self.op("Expand", value, self.op("Concat", *sizes, axis=0) if len(sizes) > 1 else rows.number)
        return typed(repeated, [_size(size, rows.name) for size in operand.shape], operand.dtype)

    def graph(self, name: str, inputs: Iterable[ir.Value], outputs: Mapping[str, ir.Value]) -> ir.Graph:
        """All nodes so far as a graph."""
        for key, value in outputs.items():
            value.name = key
        graph = ir.Graph(
            list(inputs), list(outputs.values()), nodes=self.main.nodes, opset_imports={"": OPSET}, name=name
        )
        for value in self.initializers.values():
            graph.register_initializer(value)
        return graph


def _has_many(operand: Operand, value: ir.Value) -> bool:
    """Whether a value has a row of its own for each of the phase's rows."""
    return value.shape is not None and _ROWS in operand.shape and value.shape[operand.shape.index(_ROWS)] != 1


def _size(size: Dim, rows: Dim) -> Dim:
    return rows if size == _ROWS else size


def finished(graph: ir.Graph, frozen: FrozenCell) -> ir.Model:
    """The graph as a checked model with the cell's name in its metadata, without duplicate or unused nodes."""
    model = ir.Model(
        graph,
        ir_version=IR_VERSION,
        producer_name="mnemo-compile",
        metadata_props={"digest": frozen.digest, "name": frozen.name, "version": frozen.version},
    )
    finish = Sequential(
        passes.CommonSubexpressionEliminationPass(),
        passes.LiftConstantsToInitializersPass(),
        passes.DeduplicateInitializersPass(),
        passes.RemoveUnusedNodesPass(),
        passes.NameFixPass(),
        passes.CheckerPass(full_check=True),
    )
    return finish(model).model


def serialised(model: ir.Model) -> bytes:
    """The bytes of a model. The same model gives the same bytes."""
    return ir.to_proto(model).SerializeToString(deterministic=True)
