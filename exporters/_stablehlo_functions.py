"""A cell's programs as functions of JAX: the phases, one tensor's whole step, and what its first step is given."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax

from ..program import CompiledCell, Equation, Literal, Operand, Program
from ._source import unsupported

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
        if equation.primitive not in _TABLE:
            raise unsupported(equation, "stablehlo", _TABLE)
        shape = tuple(rows if isinstance(size, str) else size for size in equation.output.shape)
        known[equation.output] = _TABLE[equation.primitive](equation, list(map(read, equation.inputs)), shape)
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


def tensor_specs(compiled: CompiledCell) -> Specs:
    """What the step of a tensor of N coordinates is given."""
    (n,) = export.symbolic_shape("N")
    shapes: dict[str, tuple[Any, ...]] = {"param": (n,), "grad": (n,)}
    shapes.update((f"memory.{name}", (n, *shape)) for name, shape in compiled.memory_slots.items())
    shapes.update((f"state.{name}", value.shape) for name, value in compiled.initial_state.items())
    shapes.update((name, ()) for name in ("matrix", "aspect", "total_steps", "lr", "weight_decay"))
    specs = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    return {**specs, **{name: jax.ShapeDtypeStruct((), np.int32) for name in ("step", "skipped")}}


def init_function(compiled: CompiledCell) -> tuple[Function, Specs]:
    """From a tensor to what its first step is given."""
    specs = tensor_specs(compiled)

    def init(inputs: Inputs) -> dict[str, jax.Array]:
        count = inputs["param"].shape[0]
        initial: dict[str, jax.Array] = {
            f"memory.{name}": jnp.zeros((count, *shape), np.float32) for name, shape in compiled.memory_slots.items()
        }
        initial.update((f"state.{name}", jnp.asarray(value)) for name, value in compiled.initial_state.items())
        return {**initial, "step": jnp.zeros((), np.int32), "skipped": jnp.zeros((), np.int32)}

    return init, {"param": specs["param"]}


def step_function(compiled: CompiledCell) -> tuple[Function, Specs]:
    """The whole step of one tensor."""
    length, sample = compiled.chunk_length, compiled.sample_chunks
    slots = [f"memory.{name}" for name in compiled.memory_slots]
    state = [f"state.{name}" for name in compiled.initial_state]
    specs = tensor_specs(compiled)

    def update(inputs: Inputs) -> dict[str, jax.Array]:
        count = inputs["param"].shape[0]
        chunks = (count + length - 1) // length

        def chunked(array: jax.Array) -> jax.Array:
            padding = [(0, chunks * length - count), *((0, 0) for _ in array.shape[1:])]
            return jnp.pad(array, padding).reshape(chunks, length, *array.shape[1:])

        every = {name: chunked(inputs[name]) for name in ("param", "grad", *slots)}
        every["valid"] = (jnp.arange(chunks * length) < count).reshape(chunks, length)
        picked, is_taken = _sample(jnp.asarray(chunks), sample)
        sampled = {name: value[picked] for name, value in every.items()}
        sampled["valid"] = sampled["valid"] & is_taken[:, None]

        rows = {name: inputs[name][None] for name in (*state, "matrix", "aspect")}
        rows["facts.coordinates"] = jnp.asarray(count, np.float32)[None]
        rows["facts.matrix"], rows["facts.aspect"] = rows.pop("matrix"), rows.pop("aspect")
        rows["clock.step"] = inputs["step"].astype(np.float32)[None]
        rows["clock.total"] = inputs["total_steps"][None]
        rows["hyper.lr"], rows["hyper.weight_decay"] = inputs["lr"][None], inputs["weight_decay"][None]

        def run(phase: str, chunk_rows: Inputs) -> dict[str, jax.Array]:
            """A phase over chunks; the tensor's row is repeated for each."""
            many = chunk_rows["param"].shape[0]
            needed = [value.name for value in compiled.programs[phase].inputs]
            spread = {key: jnp.broadcast_to(rows[key], (many, *rows[key].shape[1:])) for key in needed if key in rows}
            return _run(compiled, phase, {**chunk_rows, **spread})

        def over_sample(phase: str) -> dict[str, jax.Array]:
            """Summed over the chunks that are taken; the others may give anything, even what is not a number."""
            if phase not in compiled.programs:
                return {}
            return {
                key: jnp.sum(value, axis=0, keepdims=True, where=is_taken.reshape(-1, *(1,) * (value.ndim - 1)))
                for key, value in run(phase, sampled).items()
            }

        moments = {key: jnp.sum(value, axis=0, keepdims=True) for key, value in run("measure", every).items()}
        rows.update(moments)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in moments.values()]))
        rows["guard.finite"] = finite.astype(np.float32)[None]
        rows.update(over_sample("encode"))
        recalled = _run(compiled, "recall", rows) if "recall" in compiled.programs else {}
        rows.update((key, value) for key, value in recalled.items() if key.startswith("context."))
        rows.update(over_sample("probe"))
        advanced = run("update", every)
        counted = finite.astype(np.int32)
        outputs = {f"next.{name}": recalled[name][0] for name in state}
        for name in ("param", *slots):
            outputs[f"next.{name}"] = advanced[name].reshape(-1, *advanced[name].shape[2:])[:count]
        outputs["next.step"] = inputs["step"] + counted
        outputs["next.skipped"] = inputs["skipped"] + 1 - counted
        return {**outputs, "finite": finite}

    return update, specs


def _sample(chunks: jax.Array, sample: int) -> tuple[jax.Array, jax.Array]:
    """`sample` places of chunks, and which of them are taken: all of fewer chunks, else evenly spaced ones."""
    place = np.arange(sample, dtype=np.int32)
    # place · chunks // sample, whose product could be larger than an int32.
    spaced = place * (chunks // sample) + place * (chunks % sample) // sample
    return jnp.where(chunks >= sample, spaced, jnp.minimum(place, chunks - 1)), place < chunks


Rule = Callable[[Equation, list[jax.Array], tuple[Any, ...]], jax.Array]
"""From an equation, its inputs and the shape of its output to the output."""


def _plain(function: Callable[..., jax.Array]) -> Rule:
    return lambda equation, inputs, shape: function(*inputs)


def _reduce(equation: Equation, inputs: list[jax.Array], shape: tuple[Any, ...]) -> jax.Array:
    return _REDUCE[equation.params["kind"]](inputs[0], axis=equation.params["axes"])


def _slice(equation: Equation, inputs: list[jax.Array], shape: tuple[Any, ...]) -> jax.Array:
    axis, start, stop = (equation.params[key] for key in ("axis", "start", "stop"))
    return lax.slice_in_dim(inputs[0], start, stop, axis=axis)


def _einsum(equation: Equation, inputs: list[jax.Array], shape: tuple[Any, ...]) -> jax.Array:
    return jnp.einsum(equation.params["subscripts"], *inputs, precision=lax.Precision.HIGHEST)


_REDUCE = {"sum": jnp.sum, "max": jnp.max, "min": jnp.min}

_TABLE: dict[str, Rule] = {
    "neg": _plain(jnp.negative),
    "abs": _plain(jnp.abs),
    "exp": _plain(jnp.exp),
    "log": _plain(jnp.log),
    "log1p": _plain(jnp.log1p),
    "expm1": _plain(jnp.expm1),
    "sqrt": _plain(jnp.sqrt),
    "rsqrt": _plain(lax.rsqrt),
    "tanh": _plain(jnp.tanh),
    "sin": _plain(jnp.sin),
    "cos": _plain(jnp.cos),
    "erf": _plain(lax.erf),
    "floor": _plain(jnp.floor),
    "sign": _plain(jnp.sign),
    "is_finite": _plain(jnp.isfinite),
    "not": _plain(jnp.logical_not),
    "add": _plain(jnp.add),
    "sub": _plain(jnp.subtract),
    "mul": _plain(jnp.multiply),
    "div": _plain(jnp.divide),
    "max": _plain(jnp.maximum),
    "min": _plain(jnp.minimum),
    "pow": _plain(jnp.power),
    "gt": _plain(jnp.greater),
    "ge": _plain(jnp.greater_equal),
    "eq": _plain(jnp.equal),
    "and": _plain(jnp.logical_and),
    "or": _plain(jnp.logical_or),
    "select": _plain(jnp.where),
    "convert": lambda equation, inputs, shape: inputs[0].astype(equation.params["dtype"]),
    "reduce": _reduce,
    "reshape": lambda equation, inputs, shape: jnp.reshape(inputs[0], shape),
    "broadcast": lambda equation, inputs, shape: jnp.broadcast_to(inputs[0], shape),
    "transpose": lambda equation, inputs, shape: jnp.transpose(inputs[0], equation.params["permutation"]),
    "concatenate": lambda equation, inputs, shape: jnp.concatenate(inputs, axis=equation.params["axis"]),
    "slice": _slice,
    "einsum": _einsum,
}
"""Each primitive of the closed set as a function of JAX."""
