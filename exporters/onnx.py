"""The onnx target: one tensor's step as a model, and the phases as models of their own."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx_ir.passes import Sequential
from onnx_ir.tape import Tape

from .._layout import shape_facts
from .._verify import AbstractArtifact, AbstractRollout
from ..artifact import FrozenCell
from ..program import CompiledCell, Dim, Equation, Literal, Operand, Program
from ._package import write_text
from ._protocol import AbstractExporter
from ._source import unsupported

OPSET = 18
IR_VERSION = 8
"""The one that came with the opset, so that any runtime that knows the opset reads the file."""

_README = """\
# {name} {version} for ONNX

A learned optimizer, exported by mnemo-compile: opset {opset}, IR version {ir}. Digest: `{digest}`

`update.onnx` takes one step of one parameter tensor of any number of coordinates N ≥ 1, in row-major order.
Everything is float32 but the two counters, which are int64.

| input | shape | what it is |
|---|---|---|
| `param`, `grad` | N | the tensor and its gradient |
{memory}| `matrix` | scalar | 1 for a tensor of two axes and more, else 0 |
| `aspect` | scalar | longest axis over the product of the others; 1 for fewer than two axes |
| `step`, `skipped` | scalar | steps taken, and refused because a gradient was not finite; both 0 before the first |
| `total_steps` | scalar | how many steps will be taken, 0 if that is not known |
| `lr` | scalar | multiplies the step; 1 |
| `weight_decay` | scalar | decoupled; 0 |
{state}
For each of `param`, `memory.…`, `state.…`, `step` and `skipped` there is an output `next.…` of the same shape, the
input of the next step. `finite` is a scalar output: false where the step was refused and nothing changed. Refuse the
step of the other tensors too, to do what the other targets do.

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("update.onnx")
param = np.random.normal(size=1000).astype(np.float32)
carried = {{"param": param, "step": np.int64(0), "skipped": np.int64(0)}}
for slot in {slots}:
    carried[slot] = np.zeros(1000, np.float32)
for name, shape in {shapes}.items():
    carried[name] = np.zeros(shape, np.float32)
fixed = {{"matrix": 0, "aspect": 1, "total_steps": 100, "lr": 1, "weight_decay": 0}}
fixed = {{name: np.float32(value) for name, value in fixed.items()}}
outputs = [output.name for output in session.get_outputs()]
for _ in range(100):
    grad = carried["param"]  # of half the square
    inputs = {{name: np.asarray(value) for name, value in (carried | fixed | {{"grad": grad}}).items()}}
    results = dict(zip(outputs, session.run(outputs, inputs)))
    carried = {{name: results[f"next.{{name}}"] for name in carried}}
print(np.linalg.norm(param), "->", np.linalg.norm(carried["param"]))
```

`phases/` holds `measure`, `encode`, `recall`, `probe` and `update` as models of their own, for who splits a tensor
among devices: rows of `recall` are tensors, of the others chunks of {length} coordinates; what `measure`, `encode` and
`probe` give is summed over a tensor's chunks. An output `next.…` is the next value of the input of that name.
"""


class OnnxExporter(AbstractExporter):
    """Writes `update.onnx`, `phases/` and a README."""

    @property
    def name(self) -> str:
        return "onnx"

    def emit(self, frozen: FrozenCell, compiled: CompiledCell, folder: pathlib.Path) -> None:
        (folder / "phases").mkdir()
        for name, program in compiled.programs.items():
            (folder / "phases" / f"{name}.onnx").write_bytes(_serialise(_phase_graph(program, compiled), frozen))
        (folder / "update.onnx").write_bytes(_serialise(_step_graph(compiled), frozen))
        shapes = {f"state.{name}": tuple(value.shape) for name, value in compiled.initial_state.items()}
        slots = tuple(f"memory.{slot}" for slot in compiled.memory_slots)
        readme = _README.format(
            name=frozen.name,
            version=frozen.version,
            digest=frozen.digest,
            opset=OPSET,
            ir=IR_VERSION,
            slots=slots,
            shapes=shapes,
            memory=f"| {', '.join(f'`{slot}`' for slot in slots)} | N | the memory; 0 before the first step |\n",
            state="".join(
                f"| `{name}` | {' × '.join(map(str, shape)) or 'scalar'} | the tensor's state; 0 at first |\n"
                for name, shape in shapes.items()
            ),
            length=compiled.chunk_length,
        )
        write_text(folder / "README.md", readme)

    def text(self, frozen: FrozenCell, compiled: CompiledCell) -> str:
        return "\n".join(str(_phase_graph(program, compiled)) for program in compiled.programs.values())

    def open(self, frozen: FrozenCell, folder: pathlib.Path) -> AbstractArtifact:
        return _Artifact(folder)


class _Artifact(AbstractArtifact):
    """Phases run with the runtime's optimizations off and the step with all of them, so that both are seen."""

    def __init__(self, folder: pathlib.Path):
        import onnxruntime

        def session(path: pathlib.Path, level: onnxruntime.GraphOptimizationLevel) -> onnxruntime.InferenceSession:
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = level
            # Bytes, so that the file may be moved while the session lives.
            return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

        levels = onnxruntime.GraphOptimizationLevel
        self.phases = {
            path.stem: session(path, levels.ORT_DISABLE_ALL) for path in sorted((folder / "phases").glob("*.onnx"))
        }
        self.update = session(folder / "update.onnx", levels.ORT_ENABLE_ALL)

    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        session = self.phases[name]
        outputs = [output.name for output in session.get_outputs()]
        results = session.run(outputs, {node.name: inputs[node.name] for node in session.get_inputs()})
        return {key.removeprefix("next."): np.asarray(value) for key, value in zip(outputs, results, strict=True)}

    def start(
        self, params: Sequence[np.ndarray], *, lr: float, weight_decay: float, total_steps: int
    ) -> AbstractRollout:
        return _Rollout(self, params, {"lr": lr, "weight_decay": weight_decay, "total_steps": total_steps})


class _Rollout(AbstractRollout):
    def __init__(self, artifact: _Artifact, params: Sequence[np.ndarray], options: Mapping[str, float]):
        self.session = artifact.update
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.shapes = [value.shape for value in params]
        self.carried: list[dict[str, np.ndarray]] = []
        self.fixed: list[dict[str, np.ndarray]] = []
        for value in params:
            carried: dict[str, np.ndarray] = {"param": value.reshape(-1)}
            for node in self.session.get_inputs():
                if node.name.startswith("memory."):
                    carried[node.name] = np.zeros(value.size, np.float32)
                elif node.name.startswith("state."):
                    carried[node.name] = np.zeros(node.shape, np.float32)
                elif node.name in ("step", "skipped"):
                    carried[node.name] = np.zeros((), np.int64)
            facts = shape_facts(value.shape)
            fixed = {**options, "matrix": facts["matrix"], "aspect": facts["aspect"]}
            self.carried.append(carried)
            self.fixed.append({name: np.asarray(number, np.float32) for name, number in fixed.items()})

    def step(self, grads: Sequence[np.ndarray]) -> list[np.ndarray]:
        for place, grad in enumerate(grads):
            inputs = {**self.carried[place], **self.fixed[place], "grad": grad.reshape(-1)}
            results = dict(zip(self.outputs, self.session.run(self.outputs, inputs), strict=True))
            self.carried[place] = {name: np.asarray(results[f"next.{name}"]) for name in self.carried[place]}
        return [held["param"].reshape(shape) for held, shape in zip(self.carried, self.shapes, strict=True)]


class _Builder:
    """Records nodes, with each weight and constant as one initializer."""

    def __init__(self, weights: Mapping[str, np.ndarray]):
        self.tape = Tape()
        self.weights = weights
        self.initializers: dict[str, ir.Value] = {}

    def op(self, kind: str, *inputs: ir.Value, **attributes: int | str) -> ir.Value:
        return self.tape.op(kind, inputs, attributes)

    def weight(self, name: str) -> ir.Value:
        return self._initializer(name, self.weights[name])

    def constant(self, value: object, dtype: type | str) -> ir.Value:
        array = np.asarray(value, dtype)
        text = "_".join(map(str, array.reshape(-1).tolist()))
        return self._initializer(f"constant.{array.dtype}.{array.ndim}.{text}", array)

    def ints(self, *values: int) -> ir.Value:
        return self.constant(values, np.int64)

    def _initializer(self, name: str, array: np.ndarray) -> ir.Value:
        if name not in self.initializers:
            self.initializers[name] = self.tape.initializer(ir.tensor(np.array(array, order="C"), name=name), name)
        return self.initializers[name]

    def call(self, program: Program, inputs: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
        """The nodes of a phase. Inputs that it does not need are ignored."""
        known: dict[Operand, ir.Value] = {value: inputs[value.name] for value in program.inputs}
        sized = next((inputs[value.name] for value in program.inputs if value.shape[:1] == ("rows",)), None)

        def read(operand: Operand) -> ir.Value:
            if isinstance(operand, Literal):
                return self.constant(operand.value, operand.dtype)
            return known[operand] if operand in known else self.weight(operand.name)

        for equation in program.equations:
            if equation.primitive not in _TABLE:
                raise unsupported(equation, "onnx", _TABLE)
            result = _TABLE[equation.primitive](self, equation, [read(operand) for operand in equation.inputs], sized)
            result.name = f"{program.name}.{equation.output.name}"
            known[equation.output] = result
        # An output that is an input or a weight still has to be a value of its own.
        made = {equation.output for equation in program.equations}
        return {
            name: read(operand) if operand in made else self.op("Identity", read(operand))
            for name, operand in program.outputs
        }

    def graph(self, name: str, inputs: Sequence[ir.Value], outputs: Mapping[str, ir.Value]) -> ir.Graph:
        for key, value in outputs.items():
            value.name = key
        graph = ir.Graph(inputs, list(outputs.values()), nodes=self.tape.nodes, opset_imports={"": OPSET}, name=name)
        for value in self.initializers.values():
            graph.register_initializer(value)
        return graph


def _input(name: str, shape: Sequence[Dim], dtype: str = "float32") -> ir.Value:
    return ir.val(name, _DTYPES[dtype], list(shape))


def _typed(value: ir.Value, shape: Sequence[Dim], dtype: str = "float32") -> ir.Value:
    value.shape = ir.Shape(list(shape))
    value.dtype = _DTYPES[dtype]
    return value


_DTYPES = {
    "float32": ir.DataType.FLOAT,
    "float64": ir.DataType.DOUBLE,
    "int64": ir.DataType.INT64,
    "int32": ir.DataType.INT32,
    "bool": ir.DataType.BOOL,
}


def _phase_graph(program: Program, compiled: CompiledCell) -> ir.Graph:
    builder = _Builder(compiled.weights)
    inputs = {value.name: _input(value.name, value.shape, value.dtype) for value in program.inputs}
    outputs = builder.call(program, inputs)
    for name, operand in program.outputs:
        _typed(outputs[name], operand.shape or ("rows",), operand.dtype)
    # Names are unique in a graph, so what goes in and comes out is called otherwise when it comes out.
    taken = {value.name for value in program.inputs}
    named = {f"next.{name}" if name in taken else name: value for name, value in outputs.items()}
    return builder.graph(program.name, list(inputs.values()), named)


def _step_graph(compiled: CompiledCell) -> ir.Graph:
    """The whole step of one tensor."""
    b = _Builder(compiled.weights)
    length, slots = compiled.chunk_length, [f"memory.{slot}" for slot in compiled.memory_slots]
    given = {name: _input(name, ("N",)) for name in ("param", "grad", *slots)}
    state = {f"state.{name}": value.shape for name, value in compiled.initial_state.items()}
    given.update((name, _input(name, shape)) for name, shape in state.items())
    given.update((name, _input(name, ())) for name in ("matrix", "aspect", "total_steps", "lr", "weight_decay"))
    given.update((name, _input(name, (), "int64")) for name in ("step", "skipped"))

    count = b.op("Shape", given["param"])
    chunks = b.op("Div", b.op("Add", count, b.ints(length - 1)), b.ints(length))
    padding = b.op("Concat", b.ints(0), b.op("Sub", b.op("Mul", chunks, b.ints(length)), count), axis=0)
    scalar = b.constant((), np.int64)
    zero, one = b.constant(0, np.int64), b.constant(1, np.int64)
    count_0d, chunks_0d = b.op("Reshape", count, scalar), b.op("Reshape", chunks, scalar)
    places = b.op("Range", zero, b.op("Mul", chunks_0d, b.constant(length, np.int64)), one)
    all_chunks = {
        name: b.op("Reshape", b.op("Pad", given[name], padding), b.ints(-1, length))
        for name in ("param", "grad", *slots)
    }
    all_chunks["valid"] = b.op("Reshape", b.op("Less", places, count_0d), b.ints(-1, length))
    taken = b.op("Min", chunks_0d, b.constant(compiled.sample_chunks, np.int64))
    picked = b.op("Div", b.op("Mul", b.op("Range", zero, taken, one), chunks_0d), taken)
    sample = {name: b.op("Gather", rows, picked, axis=0) for name, rows in all_chunks.items()}
    sample_count = b.op("Reshape", taken, b.ints(1))

    def row(value: ir.Value, shape: tuple[int, ...] = ()) -> ir.Value:
        return b.op("Reshape", value, b.ints(1, *shape))

    rows = {name: row(given[name], shape) for name, shape in state.items()}
    rows["facts.coordinates"] = b.op("Cast", count, to=int(ir.DataType.FLOAT))
    rows["facts.matrix"], rows["facts.aspect"] = row(given["matrix"]), row(given["aspect"])
    rows["clock.step"] = row(b.op("Cast", given["step"], to=int(ir.DataType.FLOAT)))
    rows["clock.total"] = row(given["total_steps"])
    rows["hyper.lr"], rows["hyper.weight_decay"] = row(given["lr"]), row(given["weight_decay"])

    def run(phase: str, chunked: Mapping[str, ir.Value], count: ir.Value) -> dict[str, ir.Value]:
        """A phase over chunks; the tensor's row is repeated for each."""
        inputs = dict(chunked)
        for value in compiled.programs[phase].inputs:
            if value.name not in inputs:
                inner = [int(size) for size in value.shape[1:]]
                shape = b.op("Concat", count, b.ints(*inner), axis=0) if inner else count
                inputs[value.name] = b.op("Expand", rows[value.name], shape)
        return b.call(compiled.programs[phase], inputs)

    def total(values: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
        return {name: b.op("ReduceSum", value, b.ints(0), keepdims=1) for name, value in values.items()}

    moments = total(run("measure", all_chunks, chunks))
    rows.update(moments)
    finite = b.constant([True], np.bool_)
    for value in moments.values():
        broken = b.op("Or", b.op("IsNaN", value), b.op("IsInf", value))
        finite = b.op("And", finite, b.op("Not", broken))
    rows["guard.finite"] = b.op("Cast", finite, to=int(ir.DataType.FLOAT))
    rows.update(total(run("encode", sample, sample_count)))
    recall = compiled.programs["recall"]
    recalled = b.call(recall, {value.name: rows[value.name] for value in recall.inputs})
    rows.update((name, value) for name, value in recalled.items() if name.startswith("context."))
    rows.update(total(run("probe", sample, sample_count)))
    advanced = run("update", all_chunks, chunks)

    def coordinates(value: ir.Value) -> ir.Value:
        return b.op("Slice", b.op("Reshape", value, b.ints(-1)), b.ints(0), count, b.ints(0))

    finite_0d = b.op("Reshape", finite, scalar)
    counted = b.op("Cast", finite_0d, to=int(ir.DataType.INT64))
    outputs = {f"next.{name}": _typed(coordinates(advanced[name]), ("N",)) for name in ("param", *slots)}
    for name, shape in state.items():
        outputs[f"next.{name}"] = _typed(b.op("Reshape", recalled[name], b.ints(*shape)), shape)
    outputs["next.step"] = _typed(b.op("Add", given["step"], counted), (), "int64")
    skipped = b.op("Add", given["skipped"], b.op("Sub", one, counted))
    outputs["next.skipped"] = _typed(skipped, (), "int64")
    outputs["finite"] = _typed(finite_0d, (), "bool")
    return b.graph("step", list(given.values()), outputs)


def _serialise(graph: ir.Graph, frozen: FrozenCell) -> bytes:
    model = ir.Model(
        graph,
        ir_version=IR_VERSION,
        producer_name="mnemo-compile",
        metadata_props={"digest": frozen.digest, "name": frozen.name, "version": frozen.version},
    )
    finish = Sequential(
        passes.CommonSubexpressionEliminationPass(),
        passes.DeduplicateInitializersPass(),
        passes.RemoveUnusedNodesPass(),
        passes.NameFixPass(),
        passes.CheckerPass(full_check=True),
    )
    return ir.to_proto(finish(model).model).SerializeToString(deterministic=True)


# From an equation and its inputs to a node. The last argument has the number of rows as its first size.

Lowering = Callable[[_Builder, Equation, list[ir.Value], "ir.Value | None"], ir.Value]


def _node(kind: str) -> Lowering:
    return lambda builder, equation, inputs, sized: builder.op(kind, *inputs)


def _rsqrt(builder: _Builder, equation: Equation, inputs: list[ir.Value], sized: ir.Value | None) -> ir.Value:
    return builder.op("Reciprocal", builder.op("Sqrt", inputs[0]))


def _convert(builder: _Builder, equation: Equation, inputs: list[ir.Value], sized: ir.Value | None) -> ir.Value:
    return builder.op("Cast", inputs[0], to=int(_DTYPES[equation.params["dtype"]]))


def _sum(builder: _Builder, equation: Equation, inputs: list[ir.Value], sized: ir.Value | None) -> ir.Value:
    return builder.op("ReduceSum", inputs[0], builder.ints(*equation.params["axes"]), keepdims=0)


def _reshape(builder: _Builder, equation: Equation, inputs: list[ir.Value], sized: ir.Value | None) -> ir.Value:
    shape = [-1 if isinstance(size, str) else size for size in equation.output.shape]
    return builder.op("Reshape", inputs[0], builder.ints(*shape))


def _broadcast(builder: _Builder, equation: Equation, inputs: list[ir.Value], sized: ir.Value | None) -> ir.Value:
    assert sized is not None
    rows = builder.op("Shape", sized, start=0, end=1)
    sizes = [rows if isinstance(size, str) else builder.ints(size) for size in equation.output.shape]
    return builder.op("Expand", inputs[0], builder.op("Concat", *sizes, axis=0))


def _transpose(builder: _Builder, equation: Equation, inputs: list[ir.Value], sized: ir.Value | None) -> ir.Value:
    return builder.tape.op("Transpose", inputs, {"perm": list(equation.params["permutation"])})


def _concatenate(builder: _Builder, equation: Equation, inputs: list[ir.Value], sized: ir.Value | None) -> ir.Value:
    return builder.op("Concat", *inputs, axis=equation.params["axis"])


def _slice(builder: _Builder, equation: Equation, inputs: list[ir.Value], sized: ir.Value | None) -> ir.Value:
    return builder.op("Slice", inputs[0], *(builder.ints(equation.params[key]) for key in ("start", "stop", "axis")))


def _einsum(builder: _Builder, equation: Equation, inputs: list[ir.Value], sized: ir.Value | None) -> ir.Value:
    return builder.op("Einsum", *inputs, equation=equation.params["subscripts"])


_TABLE: dict[str, Lowering] = {
    "neg": _node("Neg"),
    "abs": _node("Abs"),
    "exp": _node("Exp"),
    "log": _node("Log"),
    "sqrt": _node("Sqrt"),
    "rsqrt": _rsqrt,
    "tanh": _node("Tanh"),
    "cos": _node("Cos"),
    "add": _node("Add"),
    "sub": _node("Sub"),
    "mul": _node("Mul"),
    "div": _node("Div"),
    "max": _node("Max"),
    "min": _node("Min"),
    "gt": _node("Greater"),
    "select": _node("Where"),
    "convert": _convert,
    "sum": _sum,
    "reshape": _reshape,
    "broadcast": _broadcast,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "slice": _slice,
    "einsum": _einsum,
}
"""Each primitive of the closed set as nodes."""
