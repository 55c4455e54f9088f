"""The second moment of the gradient: of each coordinate, in two factors, or of the tensor alone."""

import abc
from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._abstract import Dtype, MemorySlot, Rows

Chunks = Float[Array, "chunks length"]
Kept = Float[Array, ""]

NEVER = 1e-36


class AbstractSecondMoment(eqx.Module):
    """An estimate of each coordinate's mean square gradient, discounted, and what it needs to keep."""

    length: eqx.AbstractVar[int]
    """Of a chunk."""

    @abc.abstractmethod
    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        """What coordinates and chunks keep."""

    @abc.abstractmethod
    def initial_state(self) -> dict[str, Float[Array, "..."]]:
        """What is kept of the tensor, beside the sum of its mean squares and the weight ψ of that."""

    @abc.abstractmethod
    def measure(self, grad: Chunks) -> dict[str, Float[Array, "chunks ..."]]:
        """The moments of each chunk that it needs."""

    @abc.abstractmethod
    def recall(
        self, moments: Rows, facts: Rows, kept: Kept, state: Rows, level: Float[Array, " rows"]
    ) -> tuple[dict[str, Float[Array, "rows ..."]], dict[str, Float[Array, "rows ..."]]]:
        """What the coordinates are told, and the next state; `level` is the next sum of mean squares."""

    @abc.abstractmethod
    def decode(
        self,
        memory: Mapping[str, Float[Array, "chunks ..."]],
        grad: Chunks,
        valid: Bool[Array, "chunks length"],
        kept: Kept,
        unbias: Float[Array, " chunks"],
        told: Rows,
    ) -> tuple[Chunks, dict[str, Float[Array, "chunks ..."]]]:
        """The mean square of each coordinate with this step's gradient in it, and the next memory.

        `unbias` is 1/ψ with this step, `told` what `recall` told.
        """


class FullMoment(AbstractSecondMoment):
    """v ← λ v + g² in each coordinate, over ψ ← λ ψ + 1: Adam's."""

    length: int = eqx.field(static=True)

    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        return (MemorySlot("square", dtype=dtype),)

    def initial_state(self) -> dict[str, Float[Array, "..."]]:
        return {}

    def measure(self, grad: Chunks) -> dict[str, Float[Array, "chunks ..."]]:
        return {}

    def recall(
        self, moments: Rows, facts: Rows, kept: Kept, state: Rows, level: Float[Array, " rows"]
    ) -> tuple[dict[str, Float[Array, "rows ..."]], dict[str, Float[Array, "rows ..."]]]:
        return {}, {}

    def decode(
        self,
        memory: Mapping[str, Float[Array, "chunks ..."]],
        grad: Chunks,
        valid: Bool[Array, "chunks length"],
        kept: Kept,
        unbias: Float[Array, " chunks"],
        told: Rows,
    ) -> tuple[Chunks, dict[str, Float[Array, "chunks ..."]]]:
        square = kept * memory["square"] + grad * grad
        return square * unbias[:, None], {"square": square}


class FactoredMoment(AbstractSecondMoment):
    """v_cp = R_c C_p / ΣC, the rank-1 estimate of Adafactor (Shazeer and Stern 2018, arXiv 1804.04235, section 3).

    Its matrix is the tensor as it is cut into chunks: R_c is the mean square of chunk c, C_p that of place p over all
    chunks. It costs a number a chunk, and as many as a chunk is long a tensor. A tensor of one chunk has the full one.
    """

    length: int = eqx.field(static=True)

    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        return (MemorySlot("chunk_square", level="chunk"),)

    def initial_state(self) -> dict[str, Float[Array, "..."]]:
        return {"place_square": jnp.zeros(self.length)}

    def measure(self, grad: Chunks) -> dict[str, Float[Array, "chunks ..."]]:
        return {"place_square": grad * grad}

    def recall(
        self, moments: Rows, facts: Rows, kept: Kept, state: Rows, level: Float[Array, " rows"]
    ) -> tuple[dict[str, Float[Array, "rows ..."]], dict[str, Float[Array, "rows ..."]]]:
        places = jnp.arange(self.length, dtype=facts["coordinates"].dtype)
        count = jnp.floor((facts["coordinates"][:, None] - 1 - places) * (1 / self.length)) + 1
        square = kept * state["place_square"] + moments["place_square"] / jnp.maximum(count, 1)
        return {"place": square / (level + NEVER)[:, None]}, {"place_square": square}

    def decode(
        self,
        memory: Mapping[str, Float[Array, "chunks ..."]],
        grad: Chunks,
        valid: Bool[Array, "chunks length"],
        kept: Kept,
        unbias: Float[Array, " chunks"],
        told: Rows,
    ) -> tuple[Chunks, dict[str, Float[Array, "chunks ..."]]]:
        mean = jnp.sum(grad * grad, axis=1) / jnp.sum(valid.astype(grad.dtype), axis=1)
        square = kept * memory["chunk_square"] + mean
        return (square * unbias)[:, None] * told["place"], {"chunk_square": square}


class NoMoment(AbstractSecondMoment):
    """v = the tensor's mean square over past steps: coordinates are not told apart."""

    length: int = eqx.field(static=True)

    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        return ()

    def initial_state(self) -> dict[str, Float[Array, "..."]]:
        return {}

    def measure(self, grad: Chunks) -> dict[str, Float[Array, "chunks ..."]]:
        return {}

    def recall(
        self, moments: Rows, facts: Rows, kept: Kept, state: Rows, level: Float[Array, " rows"]
    ) -> tuple[dict[str, Float[Array, "rows ..."]], dict[str, Float[Array, "rows ..."]]]:
        return {"sum_of_levels": level}, {}

    def decode(
        self,
        memory: Mapping[str, Float[Array, "chunks ..."]],
        grad: Chunks,
        valid: Bool[Array, "chunks length"],
        kept: Kept,
        unbias: Float[Array, " chunks"],
        told: Rows,
    ) -> tuple[Chunks, dict[str, Float[Array, "chunks ..."]]]:
        return jnp.broadcast_to((told["sum_of_levels"] * unbias)[:, None], grad.shape), {}
