"""What the targets share whose step is that of one tensor: the names and shapes of what it is given."""

from ...program import CompiledCell, Dim

ROWS = {
    "matrix": "facts.matrix",
    "aspect": "facts.aspect",
    "role": "facts.role",
    "step": "clock.step",
    "total_steps": "clock.total",
    "lr": "hyper.lr",
    "weight_decay": "hyper.weight_decay",
}
"""Numbers that a step is given, by what phases call them in their rows."""

COUNTERS = ("step", "skipped")
SIZES = {"coordinate": "N", "chunk": "C"}
"""The free size of a slot, by its level: coordinates, or the chunks that hold them."""


def memory(compiled: CompiledCell) -> dict[str, tuple[Dim, ...]]:
    """Shapes of the memory of a tensor of N coordinates in C chunks."""
    return {f"memory.{name}": (SIZES[slot.level], *slot.shape) for name, slot in compiled.memory_slots.items()}


def state(compiled: CompiledCell) -> dict[str, tuple[Dim, ...]]:
    """Shapes of what `recall` keeps."""
    return {f"state.{name}": value.shape for name, value in compiled.initial_state.items()}


def carried(compiled: CompiledCell) -> dict[str, tuple[Dim, ...]]:
    """Shapes of what a step gives to the next, besides the parameter."""
    return {**memory(compiled), **state(compiled), **dict.fromkeys(COUNTERS, ())}


def network(compiled: CompiledCell) -> dict[str, tuple[Dim, ...]]:
    """Shapes of the sums over the network's tensors."""
    share = compiled.programs.get("share")
    return {} if share is None else {name: operand.shape[1:] for name, operand in share.outputs}


def step_inputs(compiled: CompiledCell) -> dict[str, tuple[Dim, ...]]:
    """Shapes of what the step is given."""
    read = {value.name for program in compiled.programs.values() for value in program.inputs}
    numbers = [name for name, row in ROWS.items() if name not in COUNTERS and (name != "role" or row in read)]
    return {
        **dict.fromkeys(("param", "grad"), ("N",)),
        **carried(compiled),
        **dict.fromkeys(numbers, ()),
        **network(compiled),
    }


def share_inputs(compiled: CompiledCell) -> dict[str, tuple[Dim, ...]]:
    """Shapes of what the tensor's terms of the network's sums are made of: the gradient, and what else is needed."""
    read = {value.name for value in compiled.programs["share"].inputs}
    if summarises(compiled):
        read.update(value.name for value in compiled.programs["encode"].inputs)
    inputs = step_inputs(compiled).items()
    return {name: shape for name, shape in inputs if name == "grad" or ROWS.get(name, name) in read}


def measures(compiled: CompiledCell) -> bool:
    """Whether `share` needs what is measured of the gradient, itself or for the summary."""
    return summarises(compiled) or any(v.name.startswith("moments.") for v in compiled.programs["share"].inputs)


def summarises(compiled: CompiledCell) -> bool:
    """Whether `share` needs the summary of the sampled chunks."""
    return any(value.name.startswith("summary.") for value in compiled.programs["share"].inputs)
