"""What determines a cell before meta-training, and the registry of what a configuration can say."""

import abc
import importlib.metadata
from typing import Annotated, Any, TypeVar

import pydantic
import pydantic_core

from ..errors import UsageError
from ._abstract import AbstractCell

Size = Annotated[int, pydantic.Field(ge=1, le=4096)]

ENTRY_POINTS = "mnemo_compile.cells"
"""The group of entry points in which an installed package names its configurations."""


class AbstractCellConfig(pydantic.BaseModel, abc.ABC):
    """A configuration, checked when it is made."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    kind: Any
    """The name by which files refer to the class: a `Literal` of one string, which is also its default."""
    chunk_length: Size = 32
    """Coordinates in a chunk."""
    sample_chunks: Size = 16
    """Chunks of a tensor that are sampled, at most."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] = 0
    """Of the initial weights and of all else that is drawn once."""

    @abc.abstractmethod
    def build(self) -> AbstractCell:
        """A cell of this configuration with its initial weights."""


ConfigT = TypeVar("ConfigT", bound=type[AbstractCellConfig])

_configs: dict[str, type[AbstractCellConfig]] = {}


def register_cell(config: ConfigT) -> ConfigT:
    """Makes a class of configurations known by the default of its `kind`; usable as a decorator.

    A package that is installed can name the class among its entry points in the group `mnemo_compile.cells` instead,
    and every command then finds it. A kind that is another class's raises [`UsageError`][].
    """
    kind = config.model_fields["kind"].default
    if not isinstance(kind, str):
        raise UsageError(f'{config.__name__} has no kind; give it one such as: kind: Literal["mine"] = "mine"')
    known = _configs.setdefault(kind, config)
    if (known.__module__, known.__qualname__) != (config.__module__, config.__qualname__):
        raise UsageError(
            f"the kind {kind!r} is {known.__module__}.{known.__qualname__}'s; give {config.__name__} another"
        )
    _configs[kind] = config
    return config


def known_kinds() -> tuple[str, ...]:
    """Every kind of cell that a configuration can name."""
    return tuple(sorted({*_configs, *(point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS))}))


def cell_config(data: dict[str, Any]) -> AbstractCellConfig:
    """Checked configuration. Raises `pydantic.ValidationError`."""
    return pydantic.TypeAdapter(CellConfig).validate_python(data)


def _validate(data: Any) -> AbstractCellConfig:
    if isinstance(data, AbstractCellConfig):
        return data
    if not isinstance(data, dict):
        raise pydantic_core.PydanticCustomError("cell", "should be a table of the cell's settings")
    kind = data.get("kind", "mnemosyne")
    if kind not in _configs:
        for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=str(kind)):
            register_cell(point.load())
    if kind not in _configs:
        message = (
            "there is no kind of cell {kind}; there are {known}, and more once the module that defines them is imported"
        )
        known = ", ".join(known_kinds())
        raise pydantic_core.PydanticCustomError("cell", message, {"kind": repr(kind), "known": known})
    return _configs[kind].model_validate(data)


CellConfig = Annotated[pydantic.SerializeAsAny[AbstractCellConfig], pydantic.PlainValidator(_validate)]
"""Any configuration of a known kind, as the type of a field."""
