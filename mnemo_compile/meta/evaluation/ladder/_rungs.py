"""Rungs: networks whose size, horizon, batch or start differs from a centre in one thing, as TOML files."""

import functools
import hashlib
import pathlib
import tomllib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic

from ...._suggestions import did_you_mean
from ....errors import UsageError
from ..._problems import describe_problem
from ...tasks import SupervisedConfig
from .._suites import TaskConfig

LADDERS = pathlib.Path(__file__).parent
LADDER, LARGE = "ladder", "large"
Half = Literal["choose", "report"]
CHOICES = ("choose", "report", "all", LARGE)
"""What a user can ask for: a half of the ladder, all of it, or the one for a GPU."""


class Options(pydantic.BaseModel):
    """How a training differs from a plain one, which knows its horizon and trains every tensor from the start."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    clips: bool = False
    """Whether gradients are clipped at norm 1, as many trainers do. Those of the baselines always are."""
    horizon: Literal["given", "unknown", "extended"] = "given"
    """What the cell knows of the steps: all of them, nothing, or half of them until it has taken those."""
    unfreezes: int | None = None
    """Place of a tensor that is frozen for the first half of the steps."""

    @property
    def is_plain(self) -> bool:
        """Whether results of tuned baselines are a fair measure: the cell knows what they know."""
        return self.horizon == "given" and self.unfreezes is None


class Rung(pydantic.BaseModel):
    """One training at one place of the ladder."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    task: TaskConfig
    network: str
    """Name of the centre."""
    axis: str
    """What differs from the centre."""
    half: Half
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**31)]
    options: Options = Options()

    @property
    def name(self) -> str:
        """Unique on its ladder."""
        return self.task.name

    @property
    def batch(self) -> int:
        """Examples per step."""
        return self.family.batch

    @property
    def family(self) -> SupervisedConfig:
        """The network and its data."""
        assert isinstance(self.task.family, SupervisedConfig)
        return self.task.family

    @pydantic.model_validator(mode="after")
    def _is_supervised(self) -> "Rung":
        if not isinstance(self.task.family, SupervisedConfig) or self.task.before is not None:
            raise ValueError(f"{self.task.name}: a rung is a network on data, trained from a fresh start")
        return self

    @property
    def is_text(self) -> bool:
        """Whether its result is the validation loss."""
        return self.family.data.input_kind == "symbols"

    @property
    def digest(self) -> str:
        """SHA-256 of what is trained, whatever it is called."""
        parts = (self.task.family.model_dump_json(), self.task.steps, self.seed, self.options.model_dump_json())
        return hashlib.sha256(repr(parts).encode()).hexdigest()


class Ladder(pydantic.BaseModel):
    """Rungs under one name."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str
    ref: str
    """What loads it: its name if it ships with the package, else the path of its file."""
    about: str
    rungs: Annotated[tuple[Rung, ...], pydantic.Field(min_length=1)]

    @pydantic.model_validator(mode="after")
    def _names_and_seeds_differ(self) -> "Ladder":
        for kind in ("name", "seed"):
            values = [getattr(rung, kind) for rung in self.rungs]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"two rungs have the {kind} {twice[0]}")
        return self


class _Network(pydantic.BaseModel):
    """A centre."""

    model_config = pydantic.ConfigDict(extra="forbid")

    steps: int
    family: dict[str, Any]


class _Entry(pydantic.BaseModel):
    """A rung as it is written: a centre, and what differs."""

    model_config = pydantic.ConfigDict(extra="forbid")

    name: str
    network: str
    axis: str = "centre"
    half: Half
    seed: int
    steps: int | None = None
    change: dict[str, Any] = {}
    """Keys of the family."""
    options: Options = Options()

    def rung(self, networks: dict[str, _Network]) -> dict[str, Any]:
        if self.network not in networks:
            raise ValueError(
                f"{self.name}: there is no network '{self.network}'; there are {', '.join(networks)}"
                f"{did_you_mean(self.network, networks)}"
            )
        centre = networks[self.network]
        task = {
            "name": self.name,
            "steps": self.steps or centre.steps,
            "seeds": 1,
            "family": _merged(centre.family, self.change),
        }
        kept = {key: getattr(self, key) for key in ("network", "axis", "half", "seed", "options")}
        return {"task": task, **kept}


class _Document(pydantic.BaseModel):
    """The content of a file."""

    model_config = pydantic.ConfigDict(extra="forbid")

    about: str
    networks: dict[str, _Network]
    rungs: list[_Entry]


def _merged(centre: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(centre[key], value)
        for key, value in change.items()
        if isinstance(value, dict) and isinstance(centre.get(key), dict)
    }
    return {**centre, **change, **both}


def ladders() -> dict[str, pathlib.Path]:
    """The ladders that ship with the package, by name."""
    return {path.stem: path for path in sorted(LADDERS.glob("*.toml"))}


def is_ladder(name: str) -> bool:
    """Whether a name or a TOML file is a ladder, and not a suite of tasks."""
    if name == LADDER:
        return True
    try:
        return "rungs" in tomllib.loads(pathlib.Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def load_ladder(name: str = LADDER, choice: str = "all") -> Ladder:
    """A ladder that ships with the package, or the one in a TOML file. The choice may be that of large networks.

    Raises `UsageError` for one that does not exist, and for a file that is not a ladder.
    """
    return _load(LARGE if name == LADDER and choice == LARGE else name)


@functools.cache
def _load(name: str) -> Ladder:
    path = ladders().get(name, pathlib.Path(name))
    model: type[pydantic.BaseModel] = _Document
    try:
        document = _Document.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        rungs = [entry.rung(document.networks) for entry in document.rungs]
        model = Ladder
        return Ladder.model_validate({"name": path.stem, "ref": name, "about": document.about, "rungs": rungs})
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except pydantic.ValidationError as error:
        raise UsageError(f"{path}: {describe_problem(error, model)}") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def select(ladder: Ladder, choice: str, names: Sequence[str] = ()) -> list[Rung]:
    """The rungs of a half, or all; of these, those with the names, if there are any.

    Raises `UsageError` for a name that is not among them.
    """
    rungs = {rung.name: rung for rung in ladder.rungs if choice not in ("choose", "report") or rung.half == choice}
    for name in names:
        if name not in rungs:
            raise UsageError(
                f"the ladder {ladder.name} has no rung '{name}' here; it has {', '.join(rungs)}"
                f"{did_you_mean(name, rungs)}"
            )
    return [rung for name, rung in rungs.items() if not names or name in names]
