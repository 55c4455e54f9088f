"""The phases of a cell as Programs, with the names that every target and the reference share."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ..cell import AbstractCell, cell_weights, MemorySlot, with_weights
from ..errors import MnemoError
from ..step import reference
from ._passes import stages
from ._program import Program, Value
from ._trace import jaxpr_text, refusals, rows_of, trace

PHASES = ("measure", "encode", "share", "recall", "probe", "update")
"""In the order of a step."""

OF_TENSORS = ("share", "recall")
"""Phases whose rows are tensors; of the others they are chunks."""

FACTS = ("coordinates", "matrix", "aspect", "role")
CLOCK = ("step", "total")
HYPER = ("lr", "weight_decay")
GUARD = ("finite",)


@dataclasses.dataclass(frozen=True)
class CompiledCell:
    """What the exporters know of a cell.

    **Arguments:**

    - `programs`: by phase, in the order of a step. A phase that the step does not need is not there.
    - `traced`: the same before any pass.
    - `weights`: the arrays that the programs name, and no others.
    - `initial_state`: what `recall` keeps of one tensor before the first step.
    - `chunk_length`, `sample_chunks`, `memory_slots`: see [`AbstractCell`][].
    """

    programs: Mapping[str, Program]
    traced: Mapping[str, Program]
    weights: Mapping[str, np.ndarray]
    initial_state: Mapping[str, np.ndarray]
    chunk_length: int
    sample_chunks: int
    memory_slots: Mapping[str, MemorySlot]


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


def memory_shape(slot: MemorySlot, chunk_length: int) -> tuple[int, ...]:
    """What a row of chunks holds of a slot."""
    return slot.shape if slot.level == "chunk" else (chunk_length, *slot.shape)


Groups = Mapping[str, Any]

_NO_ROWS: Any = {}


def phase(cell: AbstractCell, name: str, x: Groups) -> dict[str, Any]:
    """One phase of the reference: from groups of named rows to named rows."""
    # A cell without memory, summary, sums of the network, context or state has no rows of that group.
    x = {**dict.fromkeys(("memory", "summary", "network", "context", "state"), _NO_ROWS), **x}
    chunk = {key: x[key] for key in ("param", "grad", "memory", "valid") if key in x}
    match name:
        case "measure":
            return flatten({"moments": cell.measure(x["grad"])})
        case "encode":
            summary = cell.encode(**chunk, moments=x["moments"], facts=x["facts"], state=x["state"])
            return flatten({"summary": summary})
        case "share":
            network = cell.share(x["summary"], x["moments"], x["facts"], x["clock"], x["state"])
            return flatten({"network": network})
        case "recall":
            groups = ("summary", "network", "moments", "facts", "clock", "state", "guard")
            context, state = reference.recall(cell, **{group: x[group] for group in groups})
            return flatten({"context": context, "state": state})
        case "probe":
            return flatten({"spread": reference.probe(cell, **chunk, context=x["context"])})
        case "update":
            groups = ("context", "spread", "facts", "clock", "hyper", "guard")
            param, memory = reference.update(cell, **chunk, **{group: x[group] for group in groups})
            return flatten({"param": param, "memory": memory})
    raise ValueError(name)


def phase_inputs(cell: AbstractCell) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """The inputs that each phase of this cell may use, by dotted name."""
    chunk = rows_of(cell.chunk_length)
    known: dict[str, Any] = {
        "param": chunk,
        "grad": chunk,
        "valid": rows_of(cell.chunk_length, dtype=np.bool_),
        "memory": {slot.name: rows_of(*memory_shape(slot, cell.chunk_length)) for slot in cell.memory_slots},
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
        ("share", ("summary", "moments", "facts", "clock", "state")),
        ("recall", ("summary", "network", "moments", "facts", "clock", "state", "guard")),
        ("probe", ("param", "grad", "memory", "valid", "context")),
        ("update", ("param", "grad", "memory", "valid", "context", "spread", "facts", "clock", "hyper", "guard")),
    ):
        inputs[name] = flatten({group: known[group] for group in groups if group in known})
        with refusals(name):
            made = nested(jax.eval_shape(lambda x: phase(cell, name, nested(x)), inputs[name]))
        made_groups = ("moments", "summary", "network", "context", "spread")
        known.update((group, made[group]) for group in made_groups if group in made)
    return inputs


Watch = Callable[[str, str, Program], None]
"""Called with the name of a phase, that of a pass and the program after it."""


def compile_cell(cell: AbstractCell, watch: Watch | None = None) -> CompiledCell:
    """Traces and optimises the phases, without what nothing needs.

    **Arguments:**

    - `cell`: the cell.
    - `watch`: sees the program after each pass.

    **Returns:**

    The programs. A cell that cannot be compiled raises [`MnemoError`][] with the line that is the cause.
    """
    weights = cell_weights(cell)
    traced = {name: _trace(cell, name, weights, inputs) for name, inputs in phase_inputs(cell).items()}
    needed: set[str] = set()
    optimised: dict[str, Program] = {}
    for name in reversed(PHASES):
        outputs = tuple(
            (key, operand) for key, operand in traced[name].outputs if _is_lasting(name, key) or key in needed
        )
        if outputs:
            program = traced[name] = dataclasses.replace(traced[name], outputs=outputs)
            for stage, program in stages(program):
                if watch is not None:
                    watch(name, stage, program)
            optimised[name] = program
            needed.update(value.name for value in program.inputs)
    programs: dict[str, Program] = {}
    weights = {}
    for name in reversed(optimised):
        programs[name] = _with_shared_weights(optimised[name], weights)
        weights.update(programs[name].arrays)
    return CompiledCell(
        programs=programs,
        traced={name: traced[name] for name in programs},
        weights={name: weights[name] for name in sorted(weights)},
        initial_state={name: np.asarray(value) for name, value in cell.initial_state().items()},
        chunk_length=cell.chunk_length,
        sample_chunks=cell.sample_chunks,
        memory_slots={slot.name: slot for slot in cell.memory_slots},
    )


def jaxprs(cell: AbstractCell) -> dict[str, str]:
    """Every phase as JAX prints it."""
    weights = cell_weights(cell)
    return {name: jaxpr_text(_traceable(cell, name), weights, inputs) for name, inputs in phase_inputs(cell).items()}


def _trace(
    cell: AbstractCell, name: str, weights: Mapping[str, np.ndarray], inputs: Mapping[str, jax.ShapeDtypeStruct]
) -> Program:
    """Traces a phase twice: what has side effects may be another the second time."""
    first, second = (trace(name, _traceable(cell, name), weights, inputs) for _ in range(2))
    same = str(first) == str(second) and all(
        np.array_equal(array, second.arrays[key], equal_nan=True) for key, array in first.arrays.items()
    )
    if not same:
        raise MnemoError(
            f"the cell's {name} is not the same when it is traced again, so it depends on more than its arguments; "
            "take out what it counts, draws or reads from elsewhere"
        )
    return first


def _is_lasting(name: str, output: str) -> bool:
    """Whether an output is wanted for itself, and not only if a later phase reads it."""
    return name in ("measure", "update") or output.startswith("state.")


def _traceable(cell: AbstractCell, name: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]:
    return lambda weights, inputs: phase(with_weights(cell, weights), name, nested(inputs))


def _with_shared_weights(program: Program, others: Mapping[str, np.ndarray]) -> Program:
    """The program with each weight under a name that no other array has in another phase."""
    renames: dict[Any, Value] = {}
    for value in program.weights:
        array, name, count = program.arrays[value.name], value.name, 1
        while name in others and not _is_same(others[name], array):
            count += 1
            name = f"{value.name}_{count}"
        renames[value] = dataclasses.replace(value, name=name)

    def new(operand: Any) -> Any:
        return renames.get(operand, operand)

    return dataclasses.replace(
        program,
        weights=tuple(map(new, program.weights)),
        arrays={new(value).name: program.arrays[value.name] for value in program.weights},
        equations=tuple(
            dataclasses.replace(equation, inputs=tuple(map(new, equation.inputs))) for equation in program.equations
        ),
        outputs=tuple((name, new(operand)) for name, operand in program.outputs),
    )


def _is_same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
