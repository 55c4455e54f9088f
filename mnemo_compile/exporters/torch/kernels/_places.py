"""Where kernels find the numbers of tensors."""

import math
from collections.abc import Iterable, Sequence

from ....program import CompiledCell
from ....step import CARRIED, group_of, OF_PARTS, Phase

_FIRST = ("clock.step", "finite")
"""Numbers that all tensors have, before those that programs name. `_kernel_parts` knows their places."""
_OPTIONS = ("clock.total", "hyper.lr", "hyper.weight_decay", "hyper.pretrained")
"""Numbers of a parameter group."""

Place = tuple[int, ...]
"""The first of the rows of numbers that a name stands for, and their shape."""


class Places:
    """The places of all numbers that a cell's phases have of tensors and of groups."""

    def __init__(self, compiled: CompiledCell):
        programs = [compiled.programs[phase.name] for phase in compiled.plan]
        read = {value.name: value.shape for program in programs for value in program.inputs}
        given = {name: operand.shape for program in programs for name, operand in program.outputs}
        shapes = {name: _row_shape(shape) for name, shape in {**read, **given}.items() if _is_of_tensors(name)}
        # The outputs of a phase are beside each other, in their order.
        order = [name for name in given if name in shapes]
        order += sorted(shapes.keys() - {*order})
        self.rows = _placed([*((name, ()) for name in _FIRST), *((name, shapes[name]) for name in order)])
        """Numbers of each tensor. A sum over the network stands in the place of its terms."""
        self.options = _placed((name, ()) for name in _OPTIONS)
        """Numbers of each group."""
        self.state = _placed((f"state.{name}", value.shape) for name, value in compiled.initial_state.items())
        """Places in the state of `recall`."""
        self.sums = {
            phase.name: tuple(name for name, _ in compiled.programs[phase.name].outputs)
            for phase in compiled.plan
            if is_sum(phase)
        }
        """The outputs of phases that are summed over the chunks of a tensor."""
        self.memory = {f"memory.{slot.name}": number for number, slot in enumerate(compiled.memory_slots)}
        """The places of memory slots, after the parameter and the gradient."""


def is_sum(phase: Phase) -> bool:
    """Whether the outputs of a phase over all chunks are summed for each tensor."""
    return phase.rows == "chunks" and phase.reduce == "tensor"


def _is_of_tensors(name: str) -> bool:
    return group_of(name) not in (*OF_PARTS, *CARRIED, "clock", "hyper", "finite")


def _row_shape(shape: Sequence[int | str]) -> tuple[int, ...]:
    """The shape of what one tensor has."""
    return tuple(size for size in shape if isinstance(size, int))


def _placed(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, Place]:
    placed: dict[str, Place] = {}
    first = 0
    for name, shape in shapes:
        placed[name] = (first, *shape)
        first += math.prod(shape)
    return placed
