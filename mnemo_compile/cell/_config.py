"""Configurations: what determines a cell before meta-training, and the registry of their kinds."""

import abc
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

import pydantic
import pydantic_core

from .. import _entry_points
from ..errors import UsageError
from ._interface import AbstractCell

Size = Annotated[int, pydantic.Field(ge=1, le=4096)]


class AbstractCellConfig(pydantic.BaseModel, abc.ABC):
    """A configuration, checked when it is made."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    may_differ: ClassVar[frozenset[str]] = frozenset({"seed", "sample_chunks"})
    """Fields that change no weight's meaning: a run may start from the weights of a cell that differs in these."""

    kind: Any
    """The name by which files refer to the class: a `Literal` of one string, which is also its default."""
    chunk_length: Size = 32
    """Coordinates per chunk."""
    sample_chunks: Size = 16
    """Chunks in a tensor's sample, at most."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] = 0
    """Seed of the initial weights, and of random features."""

    @abc.abstractmethod
    def build(self) -> AbstractCell:
        """A cell of this configuration with its initial weights."""

    def template(self) -> AbstractCell:
        """A cell of this configuration whose weights are to be replaced."""
        return self.build()


ConfigT = TypeVar("ConfigT", bound=type[AbstractCellConfig])

_configs: dict[str, type[AbstractCellConfig]] = {}


def register_cell(config: ConfigT) -> ConfigT:
    """Registers a class of configurations under the default of its `kind`; usable as a decorator.

    An installed package can instead name the class among its entry points, in the group `mnemo_compile.cells`. Every
    command then finds it. A kind that belongs to another class raises `UsageError`.
    """
    kind = config.model_fields["kind"].default
    if not isinstance(kind, str):
        raise UsageError(f'{config.__name__} has no kind; give it one such as: kind: Literal["mine"] = "mine"')
    owner = _configs.setdefault(kind, config)
    if (owner.__module__, owner.__qualname__) != (config.__module__, config.__qualname__):
        raise UsageError(
            f"the kind {kind!r} belongs to {owner.__module__}.{owner.__qualname__}; give {config.__name__} another"
        )
    _configs[kind] = config
    return config


def cell_kinds() -> tuple[str, ...]:
    """Every kind of cell that a configuration can name."""
    return tuple(sorted({*_configs, *_entry_points.names(_entry_points.CELLS)}))


def config_class(data: Mapping[str, Any]) -> type[AbstractCellConfig] | None:
    """The class of configurations that a table of settings names by its `kind`, or None if there is no such kind."""
    kind = data.get("kind", "mnemosyne")
    if kind not in _configs:
        config = _entry_points.load(_entry_points.CELLS, str(kind))
        if config is not None:
            register_cell(config)
    return _configs.get(kind)


def cell_config(data: dict[str, Any]) -> AbstractCellConfig:
    """The checked configuration. Raises `pydantic.ValidationError`."""
    return pydantic.TypeAdapter(CellConfig).validate_python(data)


def _validate(data: Any) -> AbstractCellConfig:
    if isinstance(data, AbstractCellConfig):
        return data
    if not isinstance(data, dict):
        raise pydantic_core.PydanticCustomError("cell", "should be a table of the cell's settings")
    config = config_class(data)
    if config is None:
        message = (
            "there is no kind of cell {kind}; there are {kinds}, and more once the module that defines them is imported"
        )
        context = {"kind": repr(data["kind"]), "kinds": ", ".join(cell_kinds())}
        raise pydantic_core.PydanticCustomError("cell", message, context)
    return config.model_validate(data)


CellConfig = Annotated[pydantic.SerializeAsAny[AbstractCellConfig], pydantic.PlainValidator(_validate)]
"""The type of a field that holds a configuration of any registered kind."""
