"""The phases of a cell as programs, by the names of the plan."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ..cell import AbstractCell, cell_weights, with_weights
from ..errors import MnemoError
from ..step import CARRIED, FIELDS, is_lasting, MemorySlot, Phase, PHASES, PLAN, tile_slots
from ..step.reference import phases_of, run_phase
from ._names import candidates
from ._program import Program, Value
from ._trace import jaxpr_text, refusals, rows_of, TILE, trace
from .passes import stages


@dataclasses.dataclass(frozen=True)
class CompiledCell:
    """What the exporters know of a cell.

    **Arguments:**

    - `programs`: by phase, in the order of the plan. A phase that the step does not need is missing.
    - `traced`: the same before any pass.
    - `weights`: the arrays that the programs name, and no others.
    - `initial_state`: what `recall` keeps of one tensor before the first step.
    - `chunk_length`, `sample_chunks`, `tile`, `memory_slots`: those of the `AbstractCell`.
    """

    programs: Mapping[str, Program]
    traced: Mapping[str, Program]
    weights: Mapping[str, np.ndarray]
    initial_state: Mapping[str, np.ndarray]
    chunk_length: int
    sample_chunks: int
    tile: int
    memory_slots: tuple[MemorySlot, ...]

    @property
    def plan(self) -> tuple[Phase, ...]:
        """The phases that the step needs, in order."""
        return tuple(phase for phase in PLAN if phase.name in self.programs)


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
    """The inverse of `flatten`."""
    groups: dict[str, Any] = {}
    for name, value in flat.items():
        group, dot, key = name.partition(".")
        if dot:
            groups.setdefault(group, {})[key] = value
        else:
            groups[name] = value
    return groups


def phase(cell: AbstractCell, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """One phase of the reference, from rows by dotted name to rows by dotted name."""
    return flatten(run_phase(cell, name, nested(inputs)))


def phase_inputs(cell: AbstractCell) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """The inputs that each phase of this cell may use, by dotted name."""
    groups: dict[str, Any] = {
        "finite": rows_of(),
        "state": {name: rows_of(*value.shape) for name, value in cell.initial_state().items()},
        **{group: {name: rows_of() for name in names} for group, names in FIELDS.items()},
    }
    of_rows = {"chunks": _chunk_groups(cell), "tiles": _tile_groups(cell), "tensors": {}}
    of_rows["sample"] = of_rows["chunks"]
    inputs = {}
    for each in phases_of(cell):
        available = {**groups, **of_rows[each.rows]}
        inputs[each.name] = flatten({group: available[group] for group in each.reads if group in available})
        with refusals(each.name):
            outputs = jax.eval_shape(lambda rows: run_phase(cell, each.name, nested(rows)), inputs[each.name])
        groups.update((group, outputs[group]) for group in each.gives if group not in CARRIED)
    return inputs


def _chunk_groups(cell: AbstractCell) -> dict[str, Any]:
    """The inputs of phases over chunks that have a row per chunk."""
    chunk = rows_of(cell.chunk_length)
    memory = {slot.name: rows_of(*slot.row_shape(cell.chunk_length)) for slot in cell.memory_slots}
    return {"param": chunk, "grad": chunk, "valid": rows_of(cell.chunk_length, dtype=np.bool_), "memory": memory}


def _tile_groups(cell: AbstractCell) -> dict[str, Any]:
    """The inputs of phases over tiles that have the places of a tile."""
    tile = rows_of(*TILE)
    return {"param": tile, "grad": tile, "memory": {slot.name: tile for slot in tile_slots(cell.memory_slots)}}


Watch = Callable[[str, str, Program], None]
"""Called with the name of a phase, that of a pass and the program after it."""


def compile_cell(cell: AbstractCell, watch: Watch | None = None) -> CompiledCell:
    """Traces and optimises the phases, without what nothing needs.

    **Arguments:**

    - `cell`: the cell.
    - `watch`: receives the program after each pass.

    **Returns:**

    The programs. A cell that cannot be compiled raises `MnemoError` with the line that is the cause.
    """
    weights = cell_weights(cell)
    # CPython 3.13.0 crashes where JAX names the holder of a leak, if the comprehension's variable is a cell below.
    traced = {each: _trace(cell, each, weights, inputs) for each, inputs in phase_inputs(cell).items()}
    needed: set[str] = set()
    optimised: dict[str, Program] = {}
    for name in reversed(traced):
        outputs = tuple(
            (key, operand) for key, operand in traced[name].outputs if is_lasting(PHASES[name], key) or key in needed
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
        tile=cell.tile,
        memory_slots=cell.memory_slots,
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


def _traceable(cell: AbstractCell, name: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]:
    return lambda weights, inputs: phase(with_weights(cell, weights), name, inputs)


def _with_shared_weights(program: Program, others: Mapping[str, np.ndarray]) -> Program:
    """The program with each weight under a name that no other array has in another phase."""
    renames: dict[Any, Value] = {}
    for value in program.weights:
        array = program.arrays[value.name]
        name = next(name for name in candidates(value.name) if name not in others or _is_same(others[name], array))
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
