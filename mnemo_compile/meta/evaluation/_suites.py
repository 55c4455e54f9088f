"""Suites: lists of tasks that optimizers are evaluated on, as TOML files."""

import functools
import pathlib
import tomllib
from typing import Annotated

import pydantic

from ..._suggestions import did_you_mean
from ...errors import UsageError
from .._problems import describe_problem
from ..tasks import AbstractFamily, FamilyConfig

SUITES = pathlib.Path(__file__).parent / "suites"

NAME = r"^[a-z0-9][a-z0-9-]*$"
Steps = Annotated[int, pydantic.Field(ge=100, le=1_000_000, multiple_of=100)]


class BeforeConfig(pydantic.BaseModel):
    """A training by AdamW at 1e-3 that comes before the task, as for fine-tuning."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    family: FamilyConfig
    steps: Steps


class TaskConfig(pydantic.BaseModel):
    """One task: a family and a number of steps. A seed draws the data and the start."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, pydantic.Field(pattern=NAME)]
    steps: Steps
    seeds: Annotated[int, pydantic.Field(ge=1, le=1000, exclude=True)] = 3
    """Default number of runs of each optimizer; more where results vary more. It is not part of the task's digest,
    since a baseline names its seeds."""
    kind: Annotated[str, pydantic.Field(pattern=NAME, exclude=True)] = "other"
    """What is trained, such as `vision` or `text`: a report has a row for each kind. Not part of the digest."""
    source: Annotated[str, pydantic.Field(exclude=True)] = ""
    """The publication that describes the task; empty for a task of this project's own. Not part of the digest."""
    family: FamilyConfig
    before: BeforeConfig | None = None

    @pydantic.model_validator(mode="after")
    def _has_the_same_tensors(self) -> "TaskConfig":
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
    """What loads it: its name if it ships with the package, else the path of its file."""
    about: str
    """Its purpose, in a sentence."""
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

    Raises `UsageError` for a suite that does not exist, and for a file that is not a suite.
    """
    path = suites().get(name)
    if path is None:
        path = pathlib.Path(name)
        if path.suffix != ".toml":
            names = ", ".join(suites())
            raise UsageError(
                f"there is no suite '{name}'; choose one of {names}, or give the path of a .toml file"
                f"{did_you_mean(name, (*suites(), 'ladder'))}"
            )
    try:
        return Suite.model_validate({**tomllib.loads(path.read_text(encoding="utf-8")), "name": path.stem, "ref": name})
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    except pydantic.ValidationError as error:
        raise UsageError(f"{path}: {describe_problem(error, Suite)}") from None
