"""A warm start: the weights of a cell that was meta-trained before."""

from typing import NamedTuple

from ..frozen import FrozenCell
from ..cell import AbstractCell, with_weights
from ..errors import UsageError

from ._config import RunConfig

MAY_DIFFER = (
    "seed",
    "sample_chunks",
    "state_dtype",
    "matrix_step",
    "vector_step",
    "nesterov",
    "cautious",
    "warm_up",
    "reference_horizon",
    "reference_matrices",
    "reference_width",
    "signal_to_noise",
    "annealing",
)
"""What fresh weights would have been, the size of the sample, how exactly the state is kept, and the prior that the
networks bend: none changes what a weight means."""


class Start(NamedTuple):
    """The cell whose weights a run starts from."""

    ref: str
    """As the user names it."""
    frozen: FrozenCell


def starting_from(config: RunConfig, start: Start | None) -> RunConfig:
    """The configuration of a run that starts there; it names the cell by its digest.

    Raises `UsageError` for a cell of another configuration, and for another cell than the one that is named already.
    """
    if start is None:
        if config.start is not None:
            raise UsageError(f"this run starts from the cell {config.start[:12]}; name it with --from REF")
        return config
    digest = start.frozen.digest
    if config.start not in (None, digest):
        raise UsageError(
            f"this run starts from the cell {config.start[:12]} and {start.ref} is {digest[:12]}; give --from that one"
        )
    wanted, given = config.cell, start.frozen.config
    keys = ["kind", *(key for key in type(wanted).model_fields if key not in ("kind", *MAY_DIFFER))]
    key = next((key for key in keys if getattr(wanted, key) != getattr(given, key, None)), None)
    if key is not None:
        raise UsageError(
            f"{start.ref} is a cell with {key} = {getattr(given, key)!r} and this run's has {getattr(wanted, key)!r}; "
            f"give the run the same [cell] to start from it"
        )
    return config.model_copy(update={"start": digest})


def first_cell(config: RunConfig, start: Start | None) -> AbstractCell:
    """The cell that the run starts from, or a fresh one."""
    fresh = config.cell.build()
    return fresh if start is None else with_weights(fresh, start.frozen.weights)
