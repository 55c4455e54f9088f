"""The interface of a data set: batches of examples, without end."""

import abc
from typing import Annotated, Any, Literal, NamedTuple

import equinox as eqx
import jax
import pydantic
from jaxtyping import Array, Float, Int, PRNGKeyArray

Split = Literal["train", "meta", "validation"]
"""What the network is trained on; what the meta-objective also looks at; what no training looks at."""
SPLITS: tuple[Split, ...] = ("train", "meta", "validation")
InputKind = Literal["numbers", "images", "symbols"]
TargetKind = Literal["classes", "numbers"]
Shape = tuple[int, ...]
Count = Annotated[int, pydantic.Field(ge=1, le=4096)]


class Batch(NamedTuple):
    """Some examples."""

    inputs: Float[Array, "batch ..."] | Int[Array, "batch ..."]
    targets: Float[Array, "batch ..."] | Int[Array, "batch ..."]
    """Classes or symbols, as integers, or numbers."""
    weight: Float[Array, "batch ..."] | None = None
    """Weight of each target in the loss; None where all count alike. A family that needs noise puts it here."""


class AbstractData(eqx.Module):
    """A source of batches. What differs from task to task is an instance: arrays that are drawn once per task."""

    name: eqx.AbstractVar[str]
    input_shape: eqx.AbstractVar[Shape]
    """Shape of one example. For symbols: the number of places, and the number of different symbols."""
    outputs: eqx.AbstractVar[int]
    """How many classes, symbols or numbers there are to predict."""
    target_kind: eqx.AbstractVar[TargetKind]

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray) -> Any:
        """The instance of one task."""

    @abc.abstractmethod
    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        """Examples of a split, drawn with replacement."""


class AbstractDataConfig(pydantic.BaseModel, abc.ABC):
    """Which data set, and its options."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    @property
    @abc.abstractmethod
    def input_kind(self) -> InputKind:
        """What one example is: a row of numbers, an image, or a sequence of symbols."""

    @property
    @abc.abstractmethod
    def target_kind(self) -> TargetKind:
        """What is predicted: a class (of an example, or at each place of a sequence), or numbers."""

    @abc.abstractmethod
    def build(self) -> AbstractData:
        """Reads or makes the data."""


def split_key(key: PRNGKeyArray, split: Split) -> PRNGKeyArray:
    """A key of the split's own. Data that are drawn without end differ between splits in nothing else."""
    return jax.random.fold_in(key, SPLITS.index(split))
