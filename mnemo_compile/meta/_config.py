"""The configuration of a meta-training run: its sections and their keys."""

import functools
import hashlib
import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pydantic
from jaxtyping import Array, Float, Int, PyTree

from ..cell import AbstractCell, cell_weights, CellConfig, weight_name
from ..frozen import CellName
from .estimators import (
    AbstractEstimator,
    EvolutionStrategies,
    Imitation,
    PersistentEvolution,
    TruncatedBackpropagation,
)
from .inner_loop import AbstractInnerLoop, Augmentation, ImitationLoop, InnerLoop
from .tasks import FamilyConfig

Count = Annotated[int, pydantic.Field(ge=1)]
Ratio = Annotated[float, pydantic.Field(ge=1, allow_inf_nan=False)]
Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class InnerConfig(_Section):
    """The inner trainings: how many, how long, and how far from plain ones."""

    tasks: Annotated[int, pydantic.Field(ge=1, le=4096)] = 8
    """How many tasks of each family are trained at once."""
    truncation: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 20
    """Inner steps of one unroll."""
    shortest: Count = 100
    longest: Count = 1000
    """Horizons are drawn log-uniformly between these, in inner steps."""
    unknown_horizon: Fraction = 0.2
    """Fraction of tasks whose horizon the cell does not know."""
    scale: Ratio = 3.0
    tensor_scale: Ratio = 1.5
    coordinate_scale: Ratio = 1.0
    """Factors that reparametrise a whole task, each tensor and each coordinate, log-uniform in [1/x, x]."""
    loss_scale: Ratio = 1.0
    """The factor of a task's gradient, log-uniform in [1/x, x]."""
    gradient_noise: Annotated[float, pydantic.Field(ge=0, le=100)] = 0.0
    """The gradient gets noise of up to this many times its tensor's root mean square."""
    frozen: Fraction = 0.0
    """Fraction of tasks in which some tensors have no gradient."""
    restart: Fraction = 0.0
    """Fraction of tasks that turn into another one on the way, as in fine-tuning."""
    late: Fraction = 0.0
    """How much more the end of a training counts than its start: a step's weight goes from 1 − late to 1 + late."""

    @pydantic.model_validator(mode="after")
    def _horizons_in_order(self) -> "InnerConfig":
        if self.shortest > self.longest:
            raise ValueError(f"shortest = {self.shortest} must not exceed longest = {self.longest}")
        return self

    @property
    def truncations(self) -> int:
        """How many truncations the longest training has."""
        return -(-self.longest // self.truncation)

    @property
    def augmentation(self) -> Augmentation:
        """How far tasks are from plain ones."""
        return Augmentation(**{name: getattr(self, name) for name in Augmentation._fields})


class CurriculumConfig(_Section):
    """The first meta-steps are easier: horizons are shorter, families fewer. Only the meta-step counts."""

    meta_steps: Count
    """How many meta-steps are easier."""
    longest: Count | None = None
    """The longest horizon at first; it grows to `inner.longest` by the same factor each meta-step."""
    families: Count | None = None
    """How many families take part at first, in the order of the file; the others join one by one."""

    def longest_at(self, meta_step: Int[Array, ""], last: int) -> Float[Array, ""] | None:
        """The longest horizon after so many meta-steps, which ends at `last`; None if it does not change."""
        if self.longest is None:
            return None
        return self.longest * (last / self.longest) ** jnp.minimum(meta_step / self.meta_steps, 1)

    def families_at(self, meta_step: int, total: int) -> int:
        """How many families of the total take part after so many meta-steps."""
        first = self.families or total
        return first + (total - first) * min(meta_step, self.meta_steps) // self.meta_steps


class EstimatorConfig(_Section):
    """How the meta-gradient is estimated."""

    kind: Literal["truncated", "persistent", "evolution", "imitation"] = "truncated"
    """Truncated backpropagation; persistent evolution strategies; evolution strategies over whole trainings; the
    distance from the steps of a tuned AdamW."""
    deviation: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.01
    """Standard deviation of the perturbations of evolution strategies (σ)."""
    truncations: Count = 10
    """For `imitation`: length of the trainings that tune the teacher's rate."""
    teacher_leads: Fraction = 0.5
    """For `imitation`: fraction of tasks whose parameters the teacher's steps move, and not the cell's."""

    @property
    def in_pairs(self) -> bool:
        """Whether tasks are taken in pairs."""
        return self.kind in ("persistent", "evolution")

    def loop(self, loop: InnerLoop) -> AbstractInnerLoop:
        """The inner loop that the estimator sees."""
        return ImitationLoop(loop, self.teacher_leads) if self.kind == "imitation" else loop

    def build(self, inner: InnerConfig) -> AbstractEstimator:
        """The estimator over inner trainings like these."""
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
    """The meta-optimizer is Adam. The result is an average of the weights over meta-steps."""

    learning_rate: Annotated[float, pydantic.Field(gt=0, le=1)] = 1e-3
    half_life: Annotated[int, pydantic.Field(ge=0)] = 0
    """After this many meta-steps the rate has halved, and so on; 0 for a constant rate."""
    equal_families: bool = False
    """Whether the meta-gradient of each family is divided by its norm, so that noisy families count no more."""
    clip: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] = 1.0
    """Largest norm of the meta-gradient."""
    average: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.98
    """Discount of the weights' running average."""
    validate_every: Count = 50
    """Meta-steps from one validation to the next."""
    trains: tuple[str, ...] = ()
    """Weights of the cell that are meta-trained, by name or by that of a part that holds them, such as
    `network.context`; by default all. The others keep their initial values: the fewer weights are perturbed, the less
    noisy is a meta-gradient of evolution strategies."""

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """It moves the weights by the mean of the families' meta-gradients."""
        rate: optax.ScalarOrSchedule = self.learning_rate
        if self.half_life:
            rate = optax.exponential_decay(self.learning_rate, self.half_life, 0.5)
        return optax.chain(optax.clip_by_global_norm(self.clip), optax.adam(rate))

    def is_trained(self, cell: AbstractCell) -> PyTree[bool]:
        """Whether each of the cell's leaves is meta-trained."""

        def is_trained(path: tuple[Any, ...], leaf: Any) -> bool:
            is_named = not set(self.trains).isdisjoint(_prefixes(weight_name(path)))
            return eqx.is_array(leaf) and (is_named or not self.trains)

        return jax.tree_util.tree_map_with_path(is_trained, cell)


class ValidationConfig(_Section):
    """Tasks that choose among weights. They have families of their own, and all train over one fixed horizon."""

    tasks: Annotated[int, pydantic.Field(ge=1, le=4096)] = 4
    steps: Count = 300
    families: Annotated[tuple[FamilyConfig, ...], pydantic.Field(min_length=1)]


class RunConfig(_Section):
    """A whole run. `mnemo meta-train` takes the name of one that ships here, or a TOML file's path."""

    preset: str
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] = 0
    minutes: Annotated[float, pydantic.Field(gt=0)] = 5.0
    """Time of meta-training without compilation, if the call sets neither minutes nor steps."""
    checkpoint_seconds: Annotated[float, pydantic.Field(ge=0)] = 30.0
    """Time between checkpoints: a killed run loses at most this."""
    name: CellName | None = None
    """Name of the cell that the run makes; by default that of the run's folder."""
    start: Annotated[str, pydantic.Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Digest of the cell whose weights the run starts from, which the call names; by default a fresh cell."""
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
    def _trains_existing_weights(self) -> "RunConfig":
        if self.outer.trains:
            weights = cell_weights(self.cell.build())
            parts = {prefix for name in weights for prefix in _prefixes(name)}
            for name in self.outer.trains:
                if name not in parts:
                    raise ValueError(f"outer.trains: the cell has no weights {name!r}; it has {', '.join(weights)}")
        return self

    @pydantic.model_validator(mode="after")
    def _curriculum_grows(self) -> "RunConfig":
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
        determined = self.model_dump_json(exclude={"minutes", "checkpoint_seconds", "name"})
        return hashlib.sha256(determined.encode()).hexdigest()


def _prefixes(name: str) -> Iterator[str]:
    """`a`, `a.b` and `a.b.c` for `a.b.c`."""
    return itertools.accumulate(name.split("."), "{}.{}".format)
