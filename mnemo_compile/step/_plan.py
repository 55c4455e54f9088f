"""The plan of a step: its phases in order, as data.

The reference and every exported optimizer loop over the plan. Exported Python packages hold a copy of this file.
"""

from typing import Literal, NamedTuple


class Phase(NamedTuple):
    """One phase: a function of rows."""

    name: str
    rows: Literal["chunks", "sample", "tensors"]
    """What a row is: every chunk, a chunk of the sample, or a tensor."""
    reads: tuple[str, ...]
    """Groups of inputs. In a phase over chunks, a group of tensors holds the row of each chunk's tensor."""
    gives: tuple[str, ...]
    """Groups of outputs."""
    reduce: Literal["tensor", "network"] | None = None
    """Whether outputs are summed over the chunks of a tensor or over the tensors of the network."""
    decides: bool = False
    """Whether an output that is not finite refuses the step, for all tensors."""
    optional: bool = False
    """Whether a cell may lack the phase."""


PLAN: tuple[Phase, ...] = (
    Phase("measure", "chunks", ("grad",), ("moments",), reduce="tensor", decides=True),
    Phase(
        "encode",
        "sample",
        ("param", "grad", "memory", "valid", "moments", "shape", "state"),
        ("summary",),
        reduce="tensor",
        optional=True,
    ),
    Phase(
        "share",
        "tensors",
        ("summary", "moments", "shape", "clock", "state"),
        ("network",),
        reduce="network",
        optional=True,
    ),
    Phase(
        "recall",
        "tensors",
        ("summary", "network", "moments", "shape", "clock", "state", "finite"),
        ("context", "state"),
        optional=True,
    ),
    Phase("probe", "sample", ("param", "grad", "memory", "valid", "context"), ("direction",), reduce="tensor"),
    Phase(
        "update",
        "chunks",
        ("param", "grad", "memory", "valid", "context", "direction", "shape", "clock", "hyper", "finite"),
        ("param", "memory"),
    ),
)
"""The phases of a step, in order."""

PHASES: dict[str, Phase] = {phase.name: phase for phase in PLAN}

OF_CHUNKS = ("param", "grad", "memory", "valid")
"""Groups that hold a row per chunk; all others hold a row per tensor."""

CARRIED = ("param", "memory", "state")
"""Groups that a step carries to the next one. A phase that outputs such a group gives its next value."""

FIELDS: dict[str, tuple[str, ...]] = {
    "shape": ("coordinates", "matrix", "aspect", "role"),
    "clock": ("step", "total"),
    "hyper": ("lr", "weight_decay"),
}
"""Numbers in the groups that the caller fills in: the tensor's shape, the time and the user's options."""


def group_of(name: str) -> str:
    """`memory` for `memory.fast`, `param` for `param`."""
    return name.partition(".")[0]


def is_lasting(phase: Phase, output: str) -> bool:
    """Whether an output matters even if no later phase reads it: the step carries it on, or it can refuse the step."""
    return phase.decides or group_of(output) in CARRIED
