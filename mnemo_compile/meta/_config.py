"""What a meta-training run is made of: a TOML file, checked key by key."""

import functools
import hashlib
import pathlib
import tomllib
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pydantic
from jaxtyping import Array, Float, Int, PyTree

from .._fields import added
from ..frozen import first_problem
from ..cell import AbstractCell, cell_weights, CellConfig
from ..errors import UsageError

from ._estimators import (
    AbstractEstimator,
    AbstractUnroll,
    EvolutionStrategies,
    PersistentEvolution,
    TruncatedBackpropagation,
)
from ._imitation import Imitated, Imitation
from ._unroll import Augmentation, Problem
from .tasks import FamilyConfig

PRESETS = pathlib.Path(__file__).parent / "presets"

Count = Annotated[int, pydantic.Field(ge=1)]
Ratio = Annotated[float, pydantic.Field(ge=1, allow_inf_nan=False)]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class InnerConfig(_Section):
    """The inner problems: how many, how long, and how far from plain training."""

    tasks: Annotated[int, pydantic.Field(ge=1, le=4096)] = 8
    """Tasks of each family that are trained at once."""
    truncation: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 20
    """Inner steps of one unroll."""
    shortest: Count = 100
    longest: Count = 1000
    """Horizons are drawn log-uniformly between these, in inner steps."""
    unknown_horizon: Share = 0.2
    """Share of tasks whose horizon the cell is not told."""
    scale: Ratio = 3.0
    tensor_scale: Ratio = 1.5
    coordinate_scale: Ratio = 1.0
    """Reparametrisation of a whole task, of each tensor and of each coordinate, log-uniform in [1/x, x]."""
    loss_scale: Ratio = 1.0
    """The gradient of a task is multiplied by a number that is log-uniform in [1/x, x]."""
    gradient_noise: Annotated[float, pydantic.Field(ge=0, le=100)] = 0.0
    """Noise in the gradient, up to this many times its tensor's root mean square."""
    frozen: Share = 0.0
    """Share of tasks in which some tensors get no gradient."""
    restart: Share = 0.0
    """Share of tasks that become another one on the way, as in fine-tuning."""
    late: Share = 0.0
    """How much more the end of a training counts than its start: a step's weight goes from 1 − late to 1 + late."""

    @pydantic.model_validator(mode="after")
    def _horizons_in_order(self) -> "InnerConfig":
        if self.shortest > self.longest:
            raise ValueError(f"shortest = {self.shortest} must not exceed longest = {self.longest}")
        return self

    @property
    def truncations(self) -> int:
        """Of the longest training."""
        return -(-self.longest // self.truncation)

    @property
    def augmentation(self) -> Augmentation:
        """How tasks are drawn."""
        return Augmentation(**{name: getattr(self, name) for name in Augmentation._fields})


class CurriculumConfig(_Section):
    """The first meta-steps are easier: horizons are shorter, families fewer. The meta-step alone says how much."""

    meta_steps: Count
    """How many they are."""
    longest: Count | None = None
    """The longest horizon of the first; it grows to `inner.longest` by the same factor each meta-step."""
    families: Count | None = None
    """How many take part in the first, in the order of the file; the others join one by one."""

    def longest_at(self, meta_step: Int[Array, ""], last: int) -> Float[Array, ""] | None:
        """The longest horizon after so many meta-steps, on its way to the last one; None if that is it all along."""
        if self.longest is None:
            return None
        return self.longest * (last / self.longest) ** jnp.minimum(meta_step / self.meta_steps, 1)

    def families_at(self, meta_step: int, all_of_them: int) -> int:
        """How many families take part after so many meta-steps."""
        first = self.families or all_of_them
        return first + (all_of_them - first) * min(meta_step, self.meta_steps) // self.meta_steps


class EstimatorConfig(_Section):
    """How the meta-gradient is estimated."""

    kind: Literal["truncated", "persistent", "evolution", "imitation"] = "truncated"
    """Truncated backpropagation; persistent evolution strategies; evolution strategies over whole trainings; the
    distance from the steps of a tuned AdamW."""
    deviation: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.01
    """Of the perturbations of evolution strategies (σ)."""
    truncations: Count = 10
    """Of `imitation`: truncations from the start of a training that the teacher is tuned by."""
    teacher_leads: Share = 0.5
    """Of `imitation`: share of tasks whose parameters the teacher's steps move, and not the cell's."""

    @property
    def in_pairs(self) -> bool:
        """Whether tasks are taken in pairs."""
        return self.kind in ("persistent", "evolution")

    def unroll(self, problem: Problem) -> AbstractUnroll:
        """What the estimator looks at of a family."""
        return Imitated(problem, self.teacher_leads) if self.kind == "imitation" else problem

    def build(self, inner: InnerConfig) -> AbstractEstimator:
        """The estimator over inner problems like these."""
        tasks = inner.tasks
        match self.kind:
            case "truncated":
                return TruncatedBackpropagation(tasks)
            case "persistent":
                return PersistentEvolution(tasks, self.deviation)
            case "evolution":
                return EvolutionStrategies(inner.truncations, tasks, self.deviation)
            case "imitation":
                return Imitation(tasks, self.truncations)


class OuterConfig(_Section):
    """The meta-optimizer: Adam; what is kept is an average of the weights over meta-steps."""

    learning_rate: Annotated[float, pydantic.Field(gt=0, le=1)] = 1e-3
    half_life: Annotated[int, pydantic.Field(ge=0)] = added(0)
    """Meta-steps after which the rate is half of what it was, and so on; 0 for a constant rate."""
    equal_families: bool = added(False)
    """Whether the meta-gradient of each family is divided by its norm, so that noisy families count for no more."""
    clip: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] = 1.0
    """Largest norm of the meta-gradient."""
    average: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.98
    """Discount of the weights' running average."""
    validate_every: Count = 50
    """Meta-steps from one validation to the next."""
    trains: tuple[str, ...] = ()
    """Names of the cell's weights that are meta-trained, such as `context_out`; all by default. The others stay as they
    are drawn: the fewer are perturbed, the less noisy is a meta-gradient of evolution strategies."""

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """What moves the weights by the mean of the families' meta-gradients."""
        rate: optax.ScalarOrSchedule = self.learning_rate
        if self.half_life:
            rate = optax.exponential_decay(self.learning_rate, self.half_life, 0.5)
        return optax.chain(optax.clip_by_global_norm(self.clip), optax.adam(rate))

    def moved(self, cell: AbstractCell) -> PyTree[bool]:
        """Whether each of the cell's leaves is meta-trained."""

        def is_moved(path: tuple[Any, ...], leaf: Any) -> bool:
            return eqx.is_array(leaf) and (not self.trains or path[0].name in self.trains)

        return jax.tree_util.tree_map_with_path(is_moved, cell)


class ValidationConfig(_Section):
    """Tasks for choosing among weights: families of their own, trained over one fixed horizon."""

    tasks: Annotated[int, pydantic.Field(ge=1, le=4096)] = 4
    steps: Count = 300
    families: Annotated[tuple[FamilyConfig, ...], pydantic.Field(min_length=1)]


class RunConfig(_Section):
    """A whole run. `mnemo meta-train` takes the name of one that ships here, or a TOML file's path."""

    preset: str
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] = 0
    minutes: Annotated[float, pydantic.Field(gt=0)] = 5.0
    """Time of meta-training, without compilation, where the call sets neither minutes nor steps."""
    checkpoint_seconds: Annotated[float, pydantic.Field(ge=0)] = 30.0
    """Time between checkpoints, so that a killed run loses at most this."""
    start: Annotated[str, pydantic.Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Digest of the cell whose weights the run starts from, which the call names; without one, from a fresh cell."""
    cell: CellConfig
    inner: InnerConfig = InnerConfig()
    curriculum: CurriculumConfig | None = None
    estimator: EstimatorConfig = EstimatorConfig()
    outer: OuterConfig = OuterConfig()
    families: Annotated[tuple[FamilyConfig, ...], pydantic.Field(min_length=1)]
    validation: ValidationConfig

    @pydantic.model_validator(mode="after")
    def _in_pairs(self) -> "RunConfig":
        if self.estimator.in_pairs and self.inner.tasks % 2:
            raise ValueError(f"inner.tasks = {self.inner.tasks} must be even: evolution strategies take tasks in pairs")
        return self

    @pydantic.model_validator(mode="after")
    def _trains_what_there_is(self) -> "RunConfig":
        if self.outer.trains:
            named = sorted({name.split(".")[0] for name in cell_weights(self.cell.build())})
            for name in self.outer.trains:
                if name not in named:
                    raise ValueError(f"outer.trains: the cell has no weights {name!r}; it has {', '.join(named)}")
        return self

    @pydantic.model_validator(mode="after")
    def _grows(self) -> "RunConfig":
        if self.curriculum is None:
            return self
        longest, families = self.curriculum.longest, self.curriculum.families
        shortest, last = self.inner.shortest, self.inner.longest
        if longest is not None and not shortest <= longest <= last:
            raise ValueError(
                f"curriculum.longest = {longest} must be between inner.shortest = {shortest} and inner.longest = {last}"
            )
        if families is not None and families > len(self.families):
            raise ValueError(f"curriculum.families = {families} must not exceed the {len(self.families)} there are")
        return self

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that determines the weights after a given number of meta-steps."""
        determined = self.model_dump_json(exclude={"minutes", "checkpoint_seconds"})
        return hashlib.sha256(determined.encode()).hexdigest()


def presets() -> dict[str, pathlib.Path]:
    """The presets that ship with the package, by name."""
    return {path.stem: path for path in sorted(PRESETS.glob("*.toml"))}


def load_config(preset: str, overrides: tuple[str, ...] = (), seed: int | None = None) -> RunConfig:
    """The run that a preset or a TOML file describes, with `key=value` overrides such as `inner.tasks=4`.

    Raises `UsageError` for a preset that does not exist, a file that is not TOML, and a key or value that does not fit.
    """
    path, data = _read(preset)
    data["preset"] = path.stem
    for override in overrides:
        set_key(data, override)
    if seed is not None:
        data["seed"] = seed
    # The cell starts from the run's seed unless it names its own.
    if isinstance(data.get("cell"), dict):
        data["cell"].setdefault("seed", data.get("seed", 0))
    try:
        return RunConfig.model_validate(data)
    except pydantic.ValidationError as error:
        raise UsageError(f"{path}: {_problem(error)}") from None


def _read(preset: str, extended: tuple[pathlib.Path, ...] = ()) -> tuple[pathlib.Path, dict[str, Any]]:
    """The file of a preset, and its content on top of that of the preset that it extends."""
    path = presets().get(preset)
    if path is None:
        path = pathlib.Path(preset)
        if path.suffix != ".toml":
            known = ", ".join(presets())
            raise UsageError(f"there is no preset '{preset}'; choose one of {known}, or give the path of a .toml file")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    if "preset" in data:
        raise UsageError(f"{path}: preset: the name is that of the file; remove the key")
    base = data.pop("extends", None)
    if base is None:
        return path, data
    if not isinstance(base, str):
        raise UsageError(f"{path}: extends should be the name of a preset, or the path of a .toml file")
    if path.resolve() in extended:
        raise UsageError(f"{path}: extends comes back to this file; extend one that does not extend it")
    if base not in presets():
        # Beside this file, wherever the call came from.
        base = str(path.parent / base)
    _, below = _read(base, (*extended, path.resolve()))
    return path, _on_top(below, data)


def _on_top(below: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Tables key by key, but for a cell of another kind; all else as a whole."""
    merged = dict(below)
    for key, value in data.items():
        known = below.get(key)
        merged[key] = value
        if isinstance(value, dict) and isinstance(known, dict):
            if value.get("kind", known.get("kind")) == known.get("kind"):
                merged[key] = _on_top(known, value)
    return merged


def _problem(error: pydantic.ValidationError) -> str:
    problem = error.errors()[0]
    if problem["type"] != "extra_forbidden":
        return first_problem(error)
    *place, key = problem["loc"]
    section = _section(RunConfig, [part for part in place if isinstance(part, str)])
    where = ".".join(map(str, (*place, key)))
    return f"{where} is not a key here; the keys are {', '.join(section.model_fields)}"


def _section(model: type[pydantic.BaseModel], place: list[str]) -> type[pydantic.BaseModel]:
    """The model that holds the keys at a place; pydantic's own path names the member of a union too."""
    for index, part in enumerate(place):
        found = _models(model.model_fields[part].annotation) if part in model.model_fields else []
        kinds = [m for m in found if "kind" in m.model_fields]
        named = (
            m for m in kinds if any(f"'{p}'" in str(m.model_fields["kind"].annotation) for p in place[index + 1 :])
        )
        model = next(named, found[0] if found else model)
    return model


def _models(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]


def set_key(data: dict[str, Any], override: str) -> None:
    """Puts `a.b=value` into nested tables; the value is read as TOML, and as a string where it is not TOML."""
    name, _, text = override.partition("=")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, key = name.strip().split(".")
    for table in tables:
        inner = data.setdefault(table, {})
        if not isinstance(inner, dict):
            tables = "cell, inner, curriculum, estimator, outer and validation"
            raise UsageError(f"--set {override}: {table} is not a table; tables are {tables}")
        data = inner
    data[key] = value
