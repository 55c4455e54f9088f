"""A warm start: a run that begins with the weights of a meta-trained cell."""

from typing import NamedTuple

from ..cell import AbstractCell, AbstractCellConfig, with_weights
from ..errors import UsageError
from ..frozen import FrozenCell
from ._config import RunConfig


class Start(NamedTuple):
    """The cell whose weights a run starts from."""

    ref: str
    """The user's name for it."""
    frozen: FrozenCell


def starting_from(config: RunConfig, start: Start | None) -> RunConfig:
    """The configuration of a run that starts from this cell. It holds the cell's digest.

    Raises `UsageError` for a cell of another configuration, and where the configuration holds another digest.
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
    field = _differing_field(config.cell, start.frozen.config)
    if field is not None:
        before, now = (repr(getattr(cell, field, None)) for cell in (start.frozen.config, config.cell))
        raise UsageError(
            f"{start.ref} is a cell with {field} = {before} and this run's has {now}; "
            f"give the run the same [cell] to start from it"
        )
    return config.model_copy(update={"start": digest})


def _differing_field(config: AbstractCellConfig, other: AbstractCellConfig) -> str | None:
    """The first field that gives weights another meaning and that differs in the other configuration."""
    fields = [field for field in type(config).model_fields if field not in config.may_differ]
    return next((field for field in fields if getattr(config, field) != getattr(other, field, None)), None)


def first_cell(config: RunConfig, start: Start | None) -> AbstractCell:
    """The cell that the run starts from, or a fresh one."""
    fresh = config.cell.build()
    return fresh if start is None else with_weights(fresh, start.frozen.weights)
