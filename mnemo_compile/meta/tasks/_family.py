"""The interface of a family: tasks of one shape, and what is minimised."""

import abc
from typing import Any

import equinox as eqx
import pydantic
from jaxtyping import Array, Float, PRNGKeyArray

from .data import Batch, Split
from .networks import Params, Tensor


class AbstractFamily(eqx.Module):
    """Tasks of one shape, so that many run in one program. Arrays among its fields are data."""

    name: eqx.AbstractVar[str]
    tensors: eqx.AbstractVar[tuple[Tensor, ...]]
    """The parameters, and the distributions that they start from."""

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray) -> Any:
        """The instance of one task: what differs from task to task."""

    @abc.abstractmethod
    def batch(self, instance: Any, key: PRNGKeyArray, split: Split) -> Batch:
        """A batch of a split of the data; the same for the same key."""

    @abc.abstractmethod
    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        """The mean loss of a batch."""

    @abc.abstractmethod
    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        """Fraction of classes or symbols that are predicted correctly; not a number where there are none."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameters."""
        return tuple(tensor.shape for tensor in self.tensors)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, from which an optimizer tells their roles."""
        return tuple(tensor.name for tensor in self.tensors)


class AbstractFamilyConfig(pydantic.BaseModel, abc.ABC):
    """Which family, and its options."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    @abc.abstractmethod
    def build(self) -> AbstractFamily:
        """The family, with its data."""
