"""Names and shapes of the inputs of the functions for one kind of tensors: with tiles or without."""

import dataclasses
from collections.abc import Iterable

from ...program import CompiledCell, Dim
from ...step import FIELDS, MemorySlot, Phase, tile_slots

AXES = ("batch", "rows", "columns")
"""The free sizes of a tensor, which is given as a batch of matrices."""
CHUNKS = "chunks"
"""The free size of an array that has an entry per chunk."""

_NAMES = {"total": "total_steps"}
"""Names of inputs that differ from those of the plan."""
_SIZES = ("coordinates", "area", "run")
"""Numbers of a shape that follow from the three sizes."""

NUMBERS = {
    _NAMES.get(name, name): f"{group}.{name}"
    for group in ("shape", "clock", "hyper")
    for name in FIELDS[group]
    if name not in _SIZES
}
"""Inputs of a step that are numbers, and the names of their rows in the phases."""

COUNTERS = ("step", "skipped")

Shapes = dict[str, tuple[Dim, ...]]


@dataclasses.dataclass(frozen=True)
class Signature:
    """What the functions for one kind of tensors take and give.

    **Arguments:**

    - `compiled`: the cell.
    - `has_tiles`: whether the tensors have tiles.
    """

    compiled: CompiledCell
    has_tiles: bool

    def path(self, function: str) -> str:
        """The name of a function for these tensors."""
        return function_name(function, self.has_tiles)

    @property
    def plan(self) -> tuple[Phase, ...]:
        """The phases of their step. Tensors with tiles are updated by tiles, others by chunks."""
        left_out = _is_update_of_chunks if self.has_tiles else _is_of_tiles
        return tuple(phase for phase in self.compiled.plan if not left_out(phase))

    @property
    def slots(self) -> tuple[MemorySlot, ...]:
        """Their memory slots."""
        slots = self.compiled.memory_slots
        return tile_slots(slots) if self.has_tiles else slots

    @property
    def memory(self) -> Shapes:
        """Shapes of the memory."""
        return {f"memory.{slot.name}": ((CHUNKS,) if slot.per == "chunk" else AXES) + slot.shape for slot in self.slots}

    @property
    def state(self) -> Shapes:
        """Shapes of the state of `recall`."""
        return {f"state.{name}": value.shape for name, value in self.compiled.initial_state.items()}

    @property
    def carried(self) -> Shapes:
        """Shapes of the arrays, other than the parameter, that a step gives to the next one."""
        return {**self.memory, **self.state, **dict.fromkeys(COUNTERS, ())}

    @property
    def network(self) -> Shapes:
        """Shapes of the sums over the tensors of the network."""
        outputs = [output for phase in self.plan if phase.reduce == "network" for output in self._outputs(phase)]
        return {name: shape[1:] for name, shape in outputs}

    @property
    def inputs(self) -> Shapes:
        """Shapes of the inputs of the step. A number is one if a phase reads it."""
        read = self._read_by(self.plan)
        numbers = [name for name, row in NUMBERS.items() if name not in COUNTERS and row in read]
        return {
            **dict.fromkeys(("param", "grad"), AXES),
            **self.carried,
            **dict.fromkeys(numbers, ()),
            **self.network,
        }

    @property
    def share_phases(self) -> list[Phase]:
        """The phases that give a tensor's terms of the network's sums, and those that they depend on."""
        names: set[str] = set()
        phases: list[Phase] = []
        for phase in reversed(self.plan):
            if phase.reduce == "network" or names.intersection(name for name, _ in self._outputs(phase)):
                phases.insert(0, phase)
                names |= self._read_by([phase])
        return phases

    @property
    def share_inputs(self) -> Shapes:
        """Shapes of the inputs of a tensor's terms of the network's sums. The gradient is always among them."""
        names = self._read_by(self.share_phases)
        return {
            name: shape for name, shape in self.inputs.items() if name == "grad" or NUMBERS.get(name, name) in names
        }

    @property
    def missing_memory(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the rows of chunks of memory that a phase reads and these tensors do not have. They are zero."""
        return {
            value.name: tuple(size for size in value.shape if isinstance(size, int))
            for phase in self.plan
            for value in self.compiled.programs[phase.name].inputs
            if value.name.startswith("memory.") and value.name not in self.memory
        }

    def is_per_chunk(self, name: str) -> bool:
        """Whether an array of the step has an entry per chunk, not per coordinate."""
        return self.memory.get(name, ())[:1] == (CHUNKS,)

    def _read_by(self, phases: Iterable[Phase]) -> set[str]:
        return {value.name for phase in phases for value in self.compiled.programs[phase.name].inputs}

    def _outputs(self, phase: Phase) -> list[tuple[str, tuple[Dim, ...]]]:
        return [(name, operand.shape) for name, operand in self.compiled.programs[phase.name].outputs]


def function_name(function: str, has_tiles: bool) -> str:
    """The name of a function for tensors with tiles or without: `update_matrix`, or `update`."""
    return f"{function}_matrix" if has_tiles else function


def signatures(compiled: CompiledCell) -> tuple[Signature, ...]:
    """That of tensors without tiles, and that of tensors with tiles if the cell has any."""
    return tuple(Signature(compiled, has_tiles) for has_tiles in ((False, True) if compiled.tile else (False,)))


def _is_of_tiles(phase: Phase) -> bool:
    return phase.rows == "tiles"


def _is_update_of_chunks(phase: Phase) -> bool:
    return phase.rows == "chunks" and phase.reduce is None
