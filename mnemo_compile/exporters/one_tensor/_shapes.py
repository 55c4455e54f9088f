"""Names and shapes of the inputs of a step of one tensor."""

from ...program import CompiledCell, Dim
from ...step import FIELDS, Phase

_NAMES = {"total": "total_steps"}
"""Names of inputs that differ from those of the plan."""

NUMBERS = {
    _NAMES.get(name, name): f"{group}.{name}"
    for group, names in FIELDS.items()
    for name in names
    if name != "coordinates"
}
"""Inputs of a step that are numbers, and the names of their rows in the phases."""

COUNTERS = ("step", "skipped")
SIZES = {"coordinate": "N", "chunk": "C"}
"""The free size of a memory slot: coordinates, or the chunks that hold them."""

Shapes = dict[str, tuple[Dim, ...]]


def memory(compiled: CompiledCell) -> Shapes:
    """Shapes of the memory of a tensor of N coordinates in C chunks."""
    return {f"memory.{slot.name}": (SIZES[slot.per], *slot.shape) for slot in compiled.memory_slots}


def state(compiled: CompiledCell) -> Shapes:
    """Shapes of the state of `recall`."""
    return {f"state.{name}": value.shape for name, value in compiled.initial_state.items()}


def carried(compiled: CompiledCell) -> Shapes:
    """Shapes of the arrays, other than the parameter, that a step gives to the next one."""
    return {**memory(compiled), **state(compiled), **dict.fromkeys(COUNTERS, ())}


def network(compiled: CompiledCell) -> Shapes:
    """Shapes of the sums over the tensors of the network."""
    outputs = [output for phase in compiled.plan if phase.reduce == "network" for output in _outputs(compiled, phase)]
    return {name: shape[1:] for name, shape in outputs}


def step_inputs(compiled: CompiledCell) -> Shapes:
    """Shapes of the inputs of the step."""
    names = {value.name for program in compiled.programs.values() for value in program.inputs}
    numbers = [name for name, row in NUMBERS.items() if name not in COUNTERS and (name != "role" or row in names)]
    return {
        **dict.fromkeys(("param", "grad"), ("N",)),
        **carried(compiled),
        **dict.fromkeys(numbers, ()),
        **network(compiled),
    }


def share_phases(compiled: CompiledCell) -> list[Phase]:
    """The phases that give a tensor's terms of the network's sums, and those that they depend on."""
    names: set[str] = set()
    phases: list[Phase] = []
    for phase in reversed(compiled.plan):
        if phase.reduce == "network" or names.intersection(name for name, _ in _outputs(compiled, phase)):
            phases.insert(0, phase)
            names.update(value.name for value in compiled.programs[phase.name].inputs)
    return phases


def share_inputs(compiled: CompiledCell) -> Shapes:
    """Shapes of the inputs of a tensor's terms of the network's sums. The gradient is always among them."""
    names = {value.name for phase in share_phases(compiled) for value in compiled.programs[phase.name].inputs}
    inputs = step_inputs(compiled).items()
    return {name: shape for name, shape in inputs if name == "grad" or NUMBERS.get(name, name) in names}


def refuses(compiled: CompiledCell) -> bool:
    """Whether a tensor's terms of the network's sums depend on all of its gradient."""
    return any(phase.decides for phase in share_phases(compiled))


def is_per_chunk(compiled: CompiledCell, name: str) -> bool:
    """Whether an array of the step has an entry per chunk, not per coordinate."""
    return any(slot.per == "chunk" for slot in compiled.memory_slots if name == f"memory.{slot.name}")


def _outputs(compiled: CompiledCell, phase: Phase) -> list[tuple[str, tuple[Dim, ...]]]:
    return [(name, operand.shape) for name, operand in compiled.programs[phase.name].outputs]
