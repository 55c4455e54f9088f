"""A cell's programs as functions of JAX: the phases, a tensor's share and step, and what its first step is given."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from ...program import CompiledCell, Dim, Literal, Operand, Program
from ..one_tensor._shapes import COUNTERS, measures, memory, network, ROWS, share_inputs, state, step_inputs, summarises
from ._primitives import TABLE
from ..python._source import unsupported

Inputs = Mapping[str, jax.Array]
Function = Callable[[Inputs], dict[str, jax.Array]]
Specs = dict[str, jax.ShapeDtypeStruct]
"""Shapes and dtypes of a function's inputs, with a free size where there is one."""


def _run(compiled: CompiledCell, phase: str, inputs: Inputs) -> dict[str, jax.Array]:
    """The outputs of a phase. Inputs that it does not need are ignored."""
    program = compiled.programs[phase]
    known: dict[Operand, jax.Array] = {value: inputs[value.name] for value in program.inputs}
    known.update((value, jnp.asarray(compiled.weights[value.name])) for value in program.weights)
    rows = _rows(program, inputs)

    def read(operand: Operand) -> jax.Array:
        if isinstance(operand, Literal):
            return jnp.asarray(operand.value, operand.dtype)
        return known[operand]

    for equation in program.equations:
        if equation.primitive not in TABLE:
            raise unsupported(equation, "stablehlo", TABLE)
        shape = tuple(rows if isinstance(size, str) else size for size in equation.output.shape)
        known[equation.output] = TABLE[equation.primitive](equation, list(map(read, equation.inputs)), shape)
    return {name: read(operand) for name, operand in program.outputs}


def _rows(program: Program, inputs: Inputs) -> Any:
    """The free size, an int or an expression of sizes."""
    return next(inputs[value.name].shape[0] for value in program.inputs if value.shape[:1] == ("rows",))


def phase_function(compiled: CompiledCell, name: str) -> tuple[Function, Specs]:
    """A phase over any number of rows."""
    program = compiled.programs[name]
    (rows,) = export.symbolic_shape("rows")
    specs = {
        value.name: jax.ShapeDtypeStruct([rows if isinstance(size, str) else size for size in value.shape], value.dtype)
        for value in program.inputs
    }

    def phase(inputs: Inputs) -> dict[str, jax.Array]:
        return {f"next.{key}" if key in specs else key: value for key, value in _run(compiled, name, inputs).items()}

    phase.__name__ = name
    return phase, specs


def _specs(compiled: CompiledCell, shapes: Mapping[str, Sequence[Dim]]) -> Specs:
    """Of inputs of the step, given their shapes in N and C."""
    (n,) = export.symbolic_shape("N")
    sizes: dict[Any, Any] = {"N": n, "C": _chunk_count(compiled, n)}
    return {
        name: jax.ShapeDtypeStruct([sizes.get(size, size) for size in shape], _dtype(compiled, name))
        for name, shape in shapes.items()
    }


def _dtype(compiled: CompiledCell, name: str) -> Any:
    if name in COUNTERS:
        return np.int32
    group, _, key = name.partition(".")
    return jnp.dtype(compiled.memory_slots[key].dtype) if group == "memory" else np.float32


def _chunk_count(compiled: CompiledCell, coordinates: Any) -> Any:
    return (coordinates + compiled.chunk_length - 1) // compiled.chunk_length


def init_function(compiled: CompiledCell) -> tuple[Function, Specs]:
    """From a tensor to what its first step is given."""

    def init(inputs: Inputs) -> dict[str, jax.Array]:
        count = inputs["param"].shape[0]
        sizes = {"N": count, "C": _chunk_count(compiled, count)}
        initial: dict[str, jax.Array] = {
            name: jnp.zeros((sizes[str(size)], *shape), _dtype(compiled, name))
            for name, (size, *shape) in memory(compiled).items()
        }
        initial.update((f"state.{name}", jnp.asarray(value)) for name, value in compiled.initial_state.items())
        return {**initial, **{name: jnp.zeros((), np.int32) for name in COUNTERS}}

    return init, _specs(compiled, {"param": ("N",)})


def share_function(compiled: CompiledCell) -> tuple[Function, Specs]:
    """One tensor's terms of the sums over the network's tensors."""

    def share(inputs: Inputs) -> dict[str, jax.Array]:
        tensor = _Tensor(compiled, inputs)
        if measures(compiled):
            tensor.rows.update(tensor.moments())
        if summarises(compiled):
            tensor.rows.update(tensor.over_sample("encode"))
        return {name: value[0] for name, value in _run(compiled, "share", tensor.rows).items()}

    return share, _specs(compiled, share_inputs(compiled))


def step_function(compiled: CompiledCell) -> tuple[Function, Specs]:
    """The whole step of one tensor."""

    def update(inputs: Inputs) -> dict[str, jax.Array]:
        tensor = _Tensor(compiled, inputs)
        rows, moments = tensor.rows, tensor.moments()
        sums = [*moments.values(), *(inputs[name] for name in network(compiled))]
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in sums]))
        rows.update(moments)
        rows["guard.finite"] = finite.astype(np.float32)[None]
        rows.update(tensor.over_sample("encode"))
        recalled = _run(compiled, "recall", rows) if "recall" in compiled.programs else {}
        rows.update((key, value) for key, value in recalled.items() if key.startswith("context."))
        rows.update(tensor.over_sample("probe"))
        counted = finite.astype(np.int32)
        outputs = {f"next.{name}": recalled[name][0] for name in state(compiled)}
        outputs.update((f"next.{name}", value) for name, value in tensor.advanced().items())
        outputs["next.step"] = inputs["step"] + counted
        outputs["next.skipped"] = inputs["skipped"] + 1 - counted
        return {**outputs, "finite": finite}

    return update, _specs(compiled, step_inputs(compiled))


class _Tensor:
    """A tensor's chunks, the sample of them, and what is known of it as a whole while its step is taken."""

    def __init__(self, compiled: CompiledCell, inputs: Inputs):
        self.compiled = compiled
        self.length = compiled.chunk_length
        self.count = inputs["grad"].shape[0]
        self.chunks = _chunk_count(compiled, self.count)
        self.slots = memory(compiled)
        self.every = {
            name: self._chunked(name, inputs[name]) for name in ("param", "grad", *self.slots) if name in inputs
        }
        self.every["valid"] = (jnp.arange(self.chunks * self.length) < self.count).reshape(self.chunks, self.length)
        picked, self.is_taken = _sample(jnp.asarray(self.chunks), compiled.sample_chunks)
        self.sampled = {name: value[picked] for name, value in self.every.items()}
        self.sampled["valid"] &= self.is_taken[:, None]
        self.rows = {name: inputs[name][None] for name in (*state(compiled), *network(compiled)) if name in inputs}
        """One row each."""
        self.rows.update((row, inputs[name].astype(np.float32)[None]) for name, row in ROWS.items() if name in inputs)
        self.rows["facts.coordinates"] = jnp.asarray(self.count, np.float32)[None]

    def _chunked(self, name: str, array: jax.Array) -> jax.Array:
        array = array.astype(np.float32)
        if self.slots.get(name, ())[:1] == ("C",):
            return array
        padding = [(0, self.chunks * self.length - self.count), *((0, 0) for _ in array.shape[1:])]
        return jnp.pad(array, padding).reshape(self.chunks, self.length, *array.shape[1:])

    def _run(self, phase: str, chunk_rows: Inputs) -> dict[str, jax.Array]:
        """A phase over chunks; the tensor's row is repeated for each."""
        many = chunk_rows["grad"].shape[0]
        needed = [value.name for value in self.compiled.programs[phase].inputs]
        spread = {
            key: jnp.broadcast_to(self.rows[key], (many, *self.rows[key].shape[1:]))
            for key in needed
            if key in self.rows
        }
        return _run(self.compiled, phase, {**chunk_rows, **spread})

    def moments(self) -> dict[str, jax.Array]:
        """Summed over all chunks."""
        return {key: jnp.sum(value, axis=0, keepdims=True) for key, value in self._run("measure", self.every).items()}

    def over_sample(self, phase: str) -> dict[str, jax.Array]:
        """Summed over the chunks that are taken; the others may give anything, even what is not a number."""
        if phase not in self.compiled.programs:
            return {}
        return {
            key: jnp.sum(value, axis=0, keepdims=True, where=self.is_taken.reshape(-1, *(1,) * (value.ndim - 1)))
            for key, value in self._run(phase, self.sampled).items()
        }

    def advanced(self) -> dict[str, jax.Array]:
        """The next value of everything that coordinates and chunks have."""
        results = self._run("update", self.every)
        for name in ("param", *self.slots):
            if self.slots.get(name, ())[:1] != ("C",):
                results[name] = results[name].reshape(-1, *results[name].shape[2:])[: self.count]
            results[name] = results[name].astype(_dtype(self.compiled, name))
        return results


def _sample(chunks: jax.Array, sample: int) -> tuple[jax.Array, jax.Array]:
    """`sample` places of chunks, and which of them are taken: all of fewer chunks, else evenly spaced ones."""
    place = np.arange(sample, dtype=np.int32)
    # place · chunks // sample, whose product could be larger than an int32.
    spaced = place * (chunks // sample) + place * (chunks % sample) // sample
    return jnp.where(chunks >= sample, spaced, jnp.minimum(place, chunks - 1)), place < chunks


