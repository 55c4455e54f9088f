"""Suites: lists of tasks that optimizers are judged on, as TOML files."""

import functools
import pathlib
import tomllib
from typing import Annotated

import pydantic

from ...frozen import first_problem
from ...errors import UsageError

from ..tasks import AbstractFamily, FamilyConfig

SUITES = pathlib.Path(__file__).parent / "suites"

Steps = Annotated[int, pydantic.Field(ge=100, le=1_000_000, multiple_of=100)]


class BeforeConfig(pydantic.BaseModel):
    """What a network was trained on before the task begins, by AdamW at 1e-3, as for fine-tuning."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    family: FamilyConfig
    steps: Steps


class TaskConfig(pydantic.BaseModel):
    """One task: a family, of which a seed draws the data and the start, and a number of steps."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, pydantic.Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    steps: Steps
    seeds: Annotated[int, pydantic.Field(ge=1, le=1000, exclude=True)] = 3
    """Runs of each optimizer, unless the call says how many; more where chance has more of a say. No part of the
    task's digest: a baseline says which seeds it has."""
    family: FamilyConfig
    before: BeforeConfig | None = None

    @pydantic.model_validator(mode="after")
    def _goes_on_with_the_same_network(self) -> "TaskConfig":
        if self.before is not None and self.before.family.build().shapes != self.family.build().shapes:
            raise ValueError(f"{self.name}: before and family must have the same tensors")
        return self

    def build(self) -> AbstractFamily:
        """The family, with its data."""
        return self.family.build()


class Suite(pydantic.BaseModel):
    """Tasks under one name."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str
    ref: str
    """What it is loaded by: its name where it ships with the package, else the path of its file."""
    about: str
    """What it is for, in a sentence."""
    tasks: Annotated[tuple[TaskConfig, ...], pydantic.Field(min_length=1)]

    @pydantic.model_validator(mode="after")
    def _names_differ(self) -> "Suite":
        names = [task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two tasks are called {twice[0]}")
        return self


def suites() -> dict[str, pathlib.Path]:
    """The suites that ship with the package, by name."""
    return {path.stem: path for path in sorted(SUITES.glob("*.toml"))}


@functools.cache
def load_suite(name: str) -> Suite:
    """A suite that ships with the package, or the one in a TOML file.

    Raises `UsageError` for a suite that does not exist, and a file that is not one.
    """
    path = suites().get(name)
    if path is None:
        path = pathlib.Path(name)
        if path.suffix != ".toml":
            known = ", ".join(suites())
            raise UsageError(f"there is no suite '{name}'; choose one of {known}, or give the path of a .toml file")
    try:
        return Suite.model_validate({**tomllib.loads(path.read_text(encoding="utf-8")), "name": path.stem, "ref": name})
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    except pydantic.ValidationError as error:
        raise UsageError(f"{path}: {first_problem(error)}") from None
