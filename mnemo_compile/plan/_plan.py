"""The plan of a training: memory for three optimizers, and where it fits."""

from typing import Any, NamedTuple, TYPE_CHECKING

from ._command import command
from ._memory import length_of, Memory, Setting, step_memory
from ._models import subject_of
from ._placement import place, Placement
from ._state import adafactor_bytes, adamw_bytes, state_bytes

if TYPE_CHECKING:
    from ..frozen import FrozenCell


class Plan(NamedTuple):
    """What a training takes."""

    model: str
    task: str
    setting: Setting
    memory: Memory
    state: dict[str, int]
    """Bytes that each optimizer keeps. The first is that of the cell."""
    placements: dict[str, Placement]
    command: str | None
    """Of the first optimizer. None if it does not fit, or if no example does the task with such a model."""

    def data(self) -> dict[str, Any]:
        """The plan as JSON data."""
        memory = self.memory._asdict()
        trained = memory.pop("trained")
        return {
            "model": self.model,
            "task": self.task,
            **self.setting._asdict(),
            "parameters": memory.pop("parameters"),
            "trained_tensors": len(trained),
            "bytes": {name: memory[name] for name in ("weights", "gradients", "activations", "passes")},
            "optimizers": {
                name: {"state": self.state[name], **self.placements[name]._asdict()} for name in self.placements
            },
            "command": self.command,
        }


def plan(
    model: str,
    task: str,
    frozen: "FrozenCell",
    setting: Setting,
    *,
    devices: int | None = None,
    capacity: int | None = None,
) -> Plan:
    """Plans a training.

    **Arguments:**

    - `model`, `task`: as of `subject_of`.
    - `frozen`: the cell whose optimizer trains.
    - `setting`: batch, length and dtype on one device.
    - `devices`: their number. None takes the fewest that fit, or one.
    - `capacity`: bytes of a device. None asks for no more than the peak.
    """
    subject = subject_of(model, task)
    memory = step_memory(subject, setting)
    state = {
        frozen.name: state_bytes(frozen.cell(), memory.trained),
        "AdamW": adamw_bytes(memory.trained, memory.trained_bytes),
        "Adafactor": adafactor_bytes(memory.trained, memory.trained_bytes),
    }
    placements = {name: place(memory, size, capacity=capacity, devices=devices) for name, size in state.items()}
    ours = placements[frozen.name]
    line = None if ours.fits is False else command(subject, setting, ours, length_of(subject, setting))
    return Plan(model, task, setting, memory, state, placements, line)
