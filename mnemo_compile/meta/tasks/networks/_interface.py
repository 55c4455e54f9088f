"""The interface of a network: a function of a list of tensors, so that many of one shape run in one program."""

import abc
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import equinox as eqx
import pydantic
from jaxtyping import Array, Float

from ..data import InputKind, Shape

Params = Sequence[Float[Array, "..."]]
Width = Annotated[int, pydantic.Field(ge=1, le=4096)]
Depth = Annotated[int, pydantic.Field(ge=1, le=64)]


class Tensor(NamedTuple):
    """A parameter tensor, and the normal distribution that it starts from."""

    shape: Shape
    deviation: float = 0.0
    mean: float = 0.0
    name: str = ""
    """Path in the network, such as `blocks.0.attention.query.weight`. An optimizer tells the role from it."""


class AbstractNetwork(eqx.Module):
    """An architecture of fixed sizes."""

    name: eqx.AbstractVar[str]
    tensors: eqx.AbstractVar[tuple[Tensor, ...]]

    @abc.abstractmethod
    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch ..."]:
        """The outputs for a batch of inputs."""


class AbstractNetworkConfig(pydantic.BaseModel, abc.ABC):
    """The sizes that a user chooses; the others follow from the data."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    @property
    @abc.abstractmethod
    def input_kind(self) -> InputKind:
        """What the network reads. One that reads numbers also reads images."""

    @abc.abstractmethod
    def build(self, input_shape: Shape, outputs: int) -> AbstractNetwork:
        """A network from inputs of this shape (for symbols: places and symbols) to this many outputs."""
