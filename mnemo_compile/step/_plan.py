"""The plan of a step: its phases in order, as data.

The reference and every exported optimizer loop over the plan. Exported Python packages hold a copy of this file.
"""

from typing import Literal, NamedTuple


class Phase(NamedTuple):
    """One phase: a function of rows."""

    name: str
    rows: Literal["chunks", "sample", "tensors", "tiles"]
    """What a row is: a chunk, a chunk of the sample, a tensor, or a tile of a tiled matrix."""
    reads: tuple[str, ...]
    """Groups of inputs. In a phase over parts, a group of tensors holds the row of each part's tensor."""
    gives: tuple[str, ...]
    """Groups of outputs."""
    reduce: Literal["tensor", "network"] | None = None
    """Whether outputs are summed over the chunks of a tensor or over the tensors of the network."""
    decides: bool = False
    """Whether an output that is not finite refuses the step, for all tensors."""
    optional: bool = False
    """Whether a cell may lack the phase."""


PLAN: tuple[Phase, ...] = (
    Phase("measure", "chunks", ("param", "grad"), ("moments",), reduce="tensor", decides=True),
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
        ("summary", "network", "moments", "shape", "clock", "hyper", "state", "finite"),
        ("context", "state"),
        optional=True,
    ),
    Phase(
        "update",
        "chunks",
        ("param", "grad", "memory", "valid", "context", "shape", "clock", "hyper", "finite"),
        ("param", "memory"),
    ),
    Phase("orthogonalise", "tiles", ("grad", "memory", "tile", "context"), ("direction",), optional=True),
    Phase(
        "update_tiles",
        "tiles",
        ("param", "grad", "memory", "direction", "context", "clock", "hyper", "finite"),
        ("param", "memory"),
        optional=True,
    ),
)
"""The phases of a step, in order. Phases over all chunks that sum nothing leave out tiled tensors.

Consecutive phases over tiles run for one block of tiles after the other.
"""

PHASES: dict[str, Phase] = {phase.name: phase for phase in PLAN}

OF_PARTS = ("param", "grad", "memory", "valid", "direction", "tile")
"""Groups that hold a row per chunk or per tile; all others hold a row per tensor."""

CARRIED = ("param", "memory", "state")
"""Groups that a step carries to the next one. A phase that outputs such a group gives its next value."""

FIELDS: dict[str, tuple[str, ...]] = {
    "shape": ("coordinates", "area", "run", "matrix", "aspect", "role"),
    "tile": ("side",),
    "clock": ("step", "total"),
    "hyper": ("lr", "weight_decay", "pretrained"),
}
"""Numbers in the groups that the caller fills in: shapes of the tensor and the tile, the time, the user's options."""


def group_of(name: str) -> str:
    """`memory` for `memory.fast`, `param` for `param`."""
    return name.partition(".")[0]


def is_lasting(phase: Phase, output: str) -> bool:
    """Whether an output matters even if no later phase reads it: the step carries it on, or it can refuse the step."""
    return phase.decides or group_of(output) in CARRIED
