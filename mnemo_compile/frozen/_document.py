"""JSON files that name their schema and the version of this package that wrote them."""

import json
from typing import Annotated, TypeVar

import pydantic

from .._version import DISTRIBUTION, version
from ..errors import MnemoError

SCHEMA_VERSION = 1
Version = Annotated[str, pydantic.Field(pattern=r"^[0-9A-Za-z.+!]{1,40}$")]


class AbstractDocument(pydantic.BaseModel):
    """The fields at the beginning of every JSON file of this package."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: int = SCHEMA_VERSION
    written_by: Version = pydantic.Field(default_factory=version)
    """Version of mnemo-compile."""


class _Head(pydantic.BaseModel):
    """The beginning of a document of any schema."""

    schema_version: int
    written_by: Version


AnyDocument = TypeVar("AnyDocument", bound=AbstractDocument)


def read_document(kind: type[AnyDocument], raw: bytes, where: str) -> AnyDocument:
    """Reads a document and checks it.

    **Arguments:**

    - `kind`: the class of the document.
    - `raw`: the bytes of the file.
    - `where`: the name of the file in errors.

    Raises `MnemoError` for anything but a complete document of this schema.
    """
    try:
        head = _Head.model_validate_json(raw)
        if head.schema_version == SCHEMA_VERSION:
            return kind.model_validate_json(raw)
    except pydantic.ValidationError as error:
        raise MnemoError(f"{where} is not valid: {first_problem(error)}") from None
    if head.schema_version > SCHEMA_VERSION:
        raise MnemoError(
            f"{where} follows schema {head.schema_version}, which {DISTRIBUTION} {version()} does not know; "
            f"run: pip install '{DISTRIBUTION}>={head.written_by}'"
        )
    raise MnemoError(f"{where} follows schema {head.schema_version}, and the first is {SCHEMA_VERSION}")


def dump_document(document: AbstractDocument) -> bytes:
    """The bytes of a document. Equal documents give equal bytes."""
    data = document.model_dump(mode="json")
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def first_problem(error: pydantic.ValidationError) -> str:
    """The first problem of a validation, as `key: what would fit`."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(map(str, problem["loc"]))
    message = problem["msg"][0].lower() + problem["msg"][1:]
    value = problem["input"]
    shown = f", not {value!r:.60}" if place and isinstance(value, str | int | float | None) else ""
    return f"{place}: {message}{shown}" if place else message
