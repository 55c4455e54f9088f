"""The second moment of the gradient: of the tensor, and of each coordinate."""

import abc
from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...step import Dtype, inverse_root, MemorySlot, quotient
from .._moments import sum_of_squares
from .._records import Chunks, Rows, Tensors
from ._memory import discount, log_rate
from ._numbers import TINY, valid_count
from ._types import Grid, InitialState, NamedRows

Decay = Float[Array, ""]

EPSILON = 1e-5
"""Floor of the root of a coordinate's second moment, relative to the tensor's root mean square."""


class MeanSquares(NamedTuple):
    """The mean square of a tensor's gradient."""

    now: Float[Array, " rows"]
    """The mean square in this step."""
    total: Float[Array, " rows"]
    """The discounted sum of the mean squares in this step and earlier ones."""
    weight: Float[Array, " rows"]
    """ψ, the discounted number of steps in the sum."""


class Moment(NamedTuple):
    """The second moment of coordinates, including this step's gradient."""

    square: Grid
    """Unbiased mean of squares."""
    root: Grid
    """1 over its root, with a floor."""
    memory: NamedRows
    """The next memory."""


class AbstractEstimate(eqx.Module):
    """An estimate of the mean square of a coordinate's gradient, and the memory that it needs."""

    length: eqx.AbstractVar[int]
    """Coordinates per chunk."""

    @abc.abstractmethod
    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        """The memory slots of coordinates and chunks."""

    @abc.abstractmethod
    def initial_state(self) -> InitialState:
        """The tensor's state before the first step."""

    @abc.abstractmethod
    def measure(self, grad: Grid) -> NamedRows:
        """Moments of each chunk."""

    @abc.abstractmethod
    def recall(self, tensors: Tensors, decay: Decay, total: Float[Array, " rows"]) -> tuple[NamedRows, NamedRows]:
        """Context and next state. `total` is the discounted sum of the tensor's mean squares."""

    @abc.abstractmethod
    def decode(self, chunks: Chunks, decay: Decay, context: Rows) -> tuple[Grid, NamedRows]:
        """The unbiased mean square of each coordinate, including this step's gradient, and the next memory."""


class FullEstimate(AbstractEstimate):
    """v ← λ v + g² in each coordinate, over ψ ← λ ψ + 1, as in Adam."""

    length: int = eqx.field(static=True)

    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        return (MemorySlot("square", dtype=dtype),)

    def initial_state(self) -> InitialState:
        return {}

    def measure(self, grad: Grid) -> NamedRows:
        return {}

    def recall(self, tensors: Tensors, decay: Decay, total: Float[Array, " rows"]) -> tuple[NamedRows, NamedRows]:
        return {}, {}

    def decode(self, chunks: Chunks, decay: Decay, context: Rows) -> tuple[Grid, NamedRows]:
        square = decay * chunks.memory["square"] + chunks.grad * chunks.grad
        return square * context["unbias_square"][:, None], {"square": square}


class FactoredEstimate(AbstractEstimate):
    """v_cp = R_c C_p / ΣC, the rank-1 estimate of Adafactor (Shazeer and Stern 2018, arXiv 1804.04235, section 3).

    The matrix is the tensor cut into chunks: R_c is the mean square of chunk c, C_p that of place p over all chunks. A
    chunk stores one number, and a tensor as many as a chunk is long. In a tensor of one chunk the estimate is exact.
    """

    length: int = eqx.field(static=True)

    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        return (MemorySlot("chunk_square", per="chunk"),)

    def initial_state(self) -> InitialState:
        return {"place_square": jnp.zeros(self.length)}

    def measure(self, grad: Grid) -> NamedRows:
        return {"place_square": grad * grad}

    def recall(self, tensors: Tensors, decay: Decay, total: Float[Array, " rows"]) -> tuple[NamedRows, NamedRows]:
        coordinates, run = tensors.shape["coordinates"], tensors.shape["run"]
        places = jnp.arange(self.length, dtype=coordinates.dtype)
        of_run = jnp.floor((run[:, None] - 1 - places) * (1 / self.length)) + 1
        count = of_run * (coordinates / run)[:, None]
        now = tensors.moments["place_square"] / jnp.maximum(count, 1)
        square = decay * tensors.state["place_square"] + now
        return {"place": quotient(square, (total + TINY)[:, None])}, {"place_square": square}

    def decode(self, chunks: Chunks, decay: Decay, context: Rows) -> tuple[Grid, NamedRows]:
        now = jnp.sum(chunks.grad * chunks.grad, axis=1) / valid_count(chunks.valid, chunks.grad.dtype)
        square = decay * chunks.memory["chunk_square"] + now
        return (square * context["unbias_square"])[:, None] * context["place"], {"chunk_square": square}


class TensorEstimate(AbstractEstimate):
    """v is the mean square of the whole tensor, the same in all coordinates."""

    length: int = eqx.field(static=True)

    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        return ()

    def initial_state(self) -> InitialState:
        return {}

    def measure(self, grad: Grid) -> NamedRows:
        return {}

    def recall(self, tensors: Tensors, decay: Decay, total: Float[Array, " rows"]) -> tuple[NamedRows, NamedRows]:
        return {"tensor_square": total}, {}

    def decode(self, chunks: Chunks, decay: Decay, context: Rows) -> tuple[Grid, NamedRows]:
        square = context["tensor_square"] * context["unbias_square"]
        return jnp.broadcast_to(square[:, None], chunks.grad.shape), {}


ESTIMATES: dict[Literal["full", "factored", "none"], type[AbstractEstimate]] = {
    "full": FullEstimate,
    "factored": FactoredEstimate,
    "none": TensorEstimate,
}
"""Estimates by their names in a configuration."""


class SecondMoment(eqx.Module):
    """Discounted mean squares of the gradient: exact for a tensor, estimated for a coordinate."""

    log_rate: Float[Array, ""]
    estimate: AbstractEstimate

    def __init__(self, initial_discount: float, estimate: AbstractEstimate):
        self.log_rate = jnp.array(log_rate(initial_discount))
        self.estimate = estimate

    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        """The memory slots of coordinates and chunks."""
        return self.estimate.slots(dtype)

    def initial_state(self) -> InitialState:
        """The tensor's state before the first step."""
        return {"mean_square": jnp.zeros(()), "square_weight": jnp.zeros(()), **self.estimate.initial_state()}

    def measure(self, grad: Grid) -> NamedRows:
        """Moments of each chunk."""
        return {"square": sum_of_squares(grad), **self.estimate.measure(grad)}

    def mean_squares(self, tensors: Tensors) -> MeanSquares:
        """The tensor's mean squares, including this step's gradient."""
        decay, state = discount(self.log_rate), tensors.state
        now = tensors.moments["square"] / tensors.shape["coordinates"]
        return MeanSquares(now, decay * state["mean_square"] + now, decay * state["square_weight"] + 1)

    def recall(self, tensors: Tensors) -> tuple[NamedRows, NamedRows]:
        """Context and next state."""
        now, total, weight = self.mean_squares(tensors)
        context, state = self.estimate.recall(tensors, discount(self.log_rate), total)
        context = {"mean_square": now, "unbias_square": 1 / weight, **context}
        return context, {"mean_square": total, "square_weight": weight, **state}

    def decode(self, chunks: Chunks, context: Rows) -> Moment:
        """The second moment of each coordinate; `context` is what `recall` gives for the chunk's tensor."""
        square, memory = self.estimate.decode(chunks, discount(self.log_rate), context)
        root = inverse_root(square + EPSILON**2 * context["mean_square"][:, None] + TINY)
        return Moment(square, root, memory)
