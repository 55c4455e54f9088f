"""What networks are trained on: the interface of every source of batches."""

import abc
from typing import Annotated, Any, Literal, NamedTuple

import equinox as eqx
import pydantic
from jaxtyping import Array, Float, Int, PRNGKeyArray

Part = Literal["train", "judge", "held_out"]
"""What a task trains on, what its optimizer is judged by besides, and what neither sees."""
PARTS: tuple[Part, ...] = ("train", "judge", "held_out")
Reads = Literal["numbers", "images", "symbols"]
Tells = Literal["classes", "numbers"]
Shape = tuple[int, ...]
Count = Annotated[int, pydantic.Field(ge=1, le=4096)]


class Batch(NamedTuple):
    """Some examples."""

    inputs: Float[Array, "batch ..."] | Int[Array, "batch ..."]
    targets: Float[Array, "batch ..."] | Int[Array, "batch ..."]
    """Classes or symbols, as integers, or numbers."""
    weight: Float[Array, "batch ..."] | None = None
    """How much each target counts, where not all count alike. Of a quadratic, whose targets are one point: the noise of
    the gradient."""


class AbstractData(eqx.Module):
    """A source of batches. What differs from task to task is an instance of it: arrays, drawn once a task."""

    name: eqx.AbstractVar[str]
    inputs: eqx.AbstractVar[Shape]
    """Of one example; of symbols, places and how many symbols there are."""
    outputs: eqx.AbstractVar[int]
    """Classes, symbols or numbers to predict."""
    kind: eqx.AbstractVar[Tells]
    """Of the targets."""

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray) -> Any:
        """What one task has of its own."""

    @abc.abstractmethod
    def batch(self, instance: Any, key: PRNGKeyArray, part: Part, size: int) -> Batch:
        """Examples of a part, drawn with replacement."""


class AbstractDataConfig(pydantic.BaseModel, abc.ABC):
    """Which data, and what can be chosen of it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    @property
    @abc.abstractmethod
    def reads(self) -> Reads:
        """What one example is: numbers, an image of them, or a sequence of symbols."""

    @property
    @abc.abstractmethod
    def tells(self) -> Tells:
        """What is predicted: a class (of an example, or at each place of a sequence), or numbers."""

    @abc.abstractmethod
    def build(self) -> AbstractData:
        """The data, read or made."""
