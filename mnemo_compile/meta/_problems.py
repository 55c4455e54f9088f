"""What does not fit in a file of settings, in one sentence that names the key, and for a key that there is not, those
that there are."""

from typing import Any

import pydantic

from .._suggestions import did_you_mean
from ..cell import config_class
from ..frozen import first_problem


def describe_problem(
    error: pydantic.ValidationError, model: type[pydantic.BaseModel], cell: dict[str, Any] | None = None
) -> str:
    """The first problem of data that is not a valid `model`. `cell` are the settings of a cell in the data."""
    problem = error.errors()[0]
    if problem["type"] != "extra_forbidden":
        return first_problem(error)
    *place, key = problem["loc"]
    tables = [part for part in place if isinstance(part, str)]
    # The type of the field `cell` has the keys of no kind.
    of_cell = config_class(cell) if cell is not None and tables[:1] == ["cell"] else None
    section = _section(model, tables) if of_cell is None else _section(of_cell, tables[1:])
    where = ".".join(map(str, (*place, key)))
    names = section.model_fields
    return f"{where} is not a key here; the keys are {', '.join(names)}{did_you_mean(str(key), names)}"


def _section(model: type[pydantic.BaseModel], place: list[str]) -> type[pydantic.BaseModel]:
    """The model that holds the keys at a place. Pydantic's path also names the member of a union."""
    for index, part in enumerate(place):
        models = _models(model.model_fields[part].annotation) if part in model.model_fields else []
        kinds = [m for m in models if "kind" in m.model_fields]
        matching = (
            m for m in kinds if any(f"'{p}'" in str(m.model_fields["kind"].annotation) for p in place[index + 1 :])
        )
        model = next(matching, models[0] if models else model)
    return model


def _models(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]
