"""The five phases of a cell as Programs, with the names that every target and the reference share."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from .. import _step
from ..cell import AbstractCell, cell_weights, with_weights
from ._passes import optimise
from ._program import Program, Value
from ._trace import rows_of, trace

PHASES = ("measure", "encode", "recall", "probe", "update")
"""In the order of a step. Rows of `recall` are tensors, of the others chunks."""

FACTS = ("coordinates", "matrix", "aspect")
CLOCK = ("step", "total")
HYPER = ("lr", "weight_decay")
GUARD = ("finite",)


@dataclasses.dataclass(frozen=True)
class CompiledCell:
    """What the exporters know of a cell.

    **Arguments:**

    - `programs`: by phase, in the order of a step. A phase that the step does not need is not there.
    - `weights`: the arrays that the programs name, and no others.
    - `initial_state`: what `recall` keeps of one tensor before the first step.
    - `chunk_length`, `sample_chunks`, `memory_slots`: see [`AbstractCell`][].
    """

    programs: Mapping[str, Program]
    weights: Mapping[str, np.ndarray]
    initial_state: Mapping[str, np.ndarray]
    chunk_length: int
    sample_chunks: int
    memory_slots: Mapping[str, tuple[int, ...]]


def flatten(groups: Mapping[str, Any]) -> dict[str, Any]:
    """`{"memory": {"fast": x}, "param": y}` as `{"memory.fast": x, "param": y}`."""
    flat: dict[str, Any] = {}
    for name, value in groups.items():
        if isinstance(value, Mapping):
            flat.update((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            flat[name] = value
    return flat


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of [`flatten`][]."""
    groups: dict[str, Any] = {}
    for name, value in flat.items():
        group, dot, key = name.partition(".")
        if dot:
            groups.setdefault(group, {})[key] = value
        else:
            groups[name] = value
    return groups


Groups = Mapping[str, Any]


def phase(cell: AbstractCell, name: str, x: Groups) -> dict[str, Any]:
    """One phase of the reference: from groups of named rows to named rows."""
    chunk = {key: x[key] for key in ("param", "grad", "memory") if key in x}
    match name:
        case "measure":
            return flatten({"moments": cell.measure(x["grad"])})
        case "encode":
            summary = cell.encode(
                **chunk, valid=x["valid"], moments=x["moments"], facts=x["facts"], state=x.get("state", {})
            )
            return flatten({"summary": summary})
        case "recall":
            context, state = _step.recall(
                cell, x["summary"], x["moments"], x["facts"], x["clock"], x.get("state", {}), x["guard"]
            )
            return flatten({"context": context, "state": state})
        case "probe":
            return flatten({"spread": _step.probe(cell, **chunk, valid=x["valid"], context=x["context"])})
        case "update":
            param, memory = _step.update(
                cell, **chunk, context=x["context"], spread=x["spread"], hyper=x["hyper"], guard=x["guard"]
            )
            return flatten({"param": param, "memory": memory})
    raise ValueError(name)


def phase_inputs(cell: AbstractCell) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """The inputs that each phase of this cell may use, by dotted name."""
    chunk = rows_of(cell.chunk_length)
    known: dict[str, Any] = {
        "param": chunk,
        "grad": chunk,
        "valid": rows_of(cell.chunk_length, dtype=np.bool_),
        "memory": {slot.name: rows_of(cell.chunk_length, *slot.shape) for slot in cell.memory_slots},
        "state": {name: rows_of(*value.shape) for name, value in cell.initial_state().items()},
        **{
            group: {name: rows_of() for name in names}
            for group, names in (("facts", FACTS), ("clock", CLOCK), ("hyper", HYPER), ("guard", GUARD))
        },
    }
    inputs = {}
    for name, groups in (
        ("measure", ("grad",)),
        ("encode", ("param", "grad", "memory", "valid", "moments", "facts", "state")),
        ("recall", ("summary", "moments", "facts", "clock", "state", "guard")),
        ("probe", ("param", "grad", "memory", "valid", "context")),
        ("update", ("param", "grad", "memory", "context", "spread", "hyper", "guard")),
    ):
        inputs[name] = flatten({group: known[group] for group in groups})
        made = nested(jax.eval_shape(lambda x: phase(cell, name, nested(x)), inputs[name]))
        known.update((group, made[group]) for group in ("moments", "summary", "context", "spread") if group in made)
    return inputs


def compile_cell(cell: AbstractCell) -> CompiledCell:
    """Traces and optimises the phases, without what nothing needs."""
    weights = cell_weights(cell)
    traced = {name: trace(name, _traceable(cell, name), weights, inputs) for name, inputs in phase_inputs(cell).items()}
    needed: set[str] = set()
    optimised: dict[str, Program] = {}
    for name in reversed(PHASES):
        program = traced[name][0]
        outputs = tuple((key, operand) for key, operand in program.outputs if _is_lasting(name, key) or key in needed)
        if outputs:
            optimised[name] = optimise(dataclasses.replace(program, outputs=outputs))
            needed.update(value.name for value in optimised[name].inputs)
    programs: dict[str, Program] = {}
    used: dict[str, np.ndarray] = {}
    for name in reversed(optimised):
        program, arrays = optimised[name], traced[name][1]
        renames = {value: _shared(value, arrays[value.name], used) for value in program.weights}
        programs[name] = _rename(program, renames)
        used.update((new.name, arrays[old.name]) for old, new in renames.items())
    return CompiledCell(
        programs=programs,
        weights={name: used[name] for name in sorted(used)},
        initial_state={name: np.asarray(value) for name, value in cell.initial_state().items()},
        chunk_length=cell.chunk_length,
        sample_chunks=cell.sample_chunks,
        memory_slots={slot.name: slot.shape for slot in cell.memory_slots},
    )


def _is_lasting(name: str, output: str) -> bool:
    """Whether an output is wanted for itself, and not only if a later phase reads it."""
    return name in ("measure", "update") or output.startswith("state.")


def _traceable(cell: AbstractCell, name: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]:
    return lambda weights, inputs: phase(with_weights(cell, weights), name, nested(inputs))


def _shared(value: Value, array: np.ndarray, used: Mapping[str, np.ndarray]) -> Value:
    """The value under a name that no other array has in another phase."""

    def digest(array: np.ndarray) -> str:
        return hashlib.sha256(repr((array.dtype, array.shape)).encode() + array.tobytes()).hexdigest()

    name, count = value.name, 1
    while name in used and digest(used[name]) != digest(array):
        count += 1
        name = f"{value.name}_{count}"
    return dataclasses.replace(value, name=name)


def _rename(program: Program, renames: Mapping[Value, Value]) -> Program:
    def new(operand: Any) -> Any:
        return renames.get(operand, operand)

    return dataclasses.replace(
        program,
        weights=tuple(map(new, program.weights)),
        equations=tuple(
            dataclasses.replace(equation, inputs=tuple(map(new, equation.inputs))) for equation in program.equations
        ),
        outputs=tuple((name, new(operand)) for name, operand in program.outputs),
    )
