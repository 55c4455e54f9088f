"""The compact associative memory: attention over the whole discounted past, at constant size."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...step import MemorySlot
from .._records import Chunks
from ._features import bounded, Kernel, RandomFeatures
from ._numbers import valid_count
from ._pooling import dense


def discount(log_rate: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """λ = exp(−τ) with τ = exp(log_rate) > 0."""
    return jnp.exp(-jnp.exp(log_rate))


def log_rate(discount: float) -> float:
    """The argument for which `discount` gives this λ."""
    return math.log(-math.log(discount))


class AssociativeMemory(eqx.Module):
    """N_t = λ N_{t−1} + φ(k_t) v_tᵀ and Ψ_t = λ Ψ_{t−1} + φ(k_t), read as φ(q_t)ᵀN_t / φ(q_t)ᵀΨ_t.

    This read equals attention with kernel φ(q)ᵀφ(k) over all steps so far, where step s has weight λ^{t−s} (Jain et al.
    2023, "Mnemosyne", compact associative memory). Each meta-token has `heads` such memories, each with its own keys,
    queries, values and λ.
    """

    query: Float[Array, "projected token"]
    key: Float[Array, "projected token"]
    value: Float[Array, "projected token"]
    log_rate: Float[Array, " slots"]
    """log(−log λ) of each slot. There is a slot for each head of each meta-token."""
    kernel: RandomFeatures
    heads: int = eqx.field(static=True)

    def __init__(
        self, token: int, meta_tokens: int, random_features: int, kernel: Kernel, *, heads: int = 1, key: PRNGKeyArray
    ):
        keys = jax.random.split(key, 4)
        self.query = dense(keys[0], heads * token, token)
        self.key = dense(keys[1], heads * token, token)
        self.value = dense(keys[2], heads * token, token)
        # The memories reach back ten to a hundred steps.
        self.log_rate = jnp.linspace(log_rate(0.9), log_rate(0.99), meta_tokens * heads)
        self.kernel = RandomFeatures(random_features, token, kernel, key=keys[3])
        self.heads = heads

    def initial_state(self) -> tuple[Float[Array, "slots random token"], Float[Array, "slots random"]]:
        slots, token, random = self.log_rate.shape[0], self.query.shape[1], self.kernel.size
        return jnp.zeros((slots, random, token)), jnp.zeros((slots, random))

    def __call__(
        self,
        x: Float[Array, "tensors meta token"],
        numerator: Float[Array, "tensors slots random token"],
        denominator: Float[Array, "tensors slots random"],
    ) -> tuple[
        Float[Array, "tensors meta projected"],
        Float[Array, "tensors slots random token"],
        Float[Array, "tensors slots random"],
    ]:
        """The read of each head for x, and the memory after x has been written."""
        query = self.kernel(bounded(self._projected(self.query, x)))
        key = self.kernel(bounded(self._projected(self.key, x)))
        value = self._projected(self.value, x).transpose(1, 2, 0)
        decay = discount(self.log_rate)
        numerator = decay[:, None, None] * numerator + jnp.einsum("mts,tsd->tsmd", key, value)
        denominator = decay[:, None] * denominator + jnp.einsum("mts->tsm", key)
        read = jnp.einsum("mts,tsmd->tsd", query, numerator)
        read = read / jnp.einsum("mts,tsm->ts", query, denominator)[:, :, None]
        return read.reshape(*x.shape[:2], self.query.shape[0]), numerator, denominator

    def _projected(
        self, weight: Float[Array, "projected token"], x: Float[Array, "tensors meta token"]
    ) -> Float[Array, "token tensors slots"]:
        """W x for each head of each meta-token."""
        if self.heads == 1:
            return jnp.einsum("ed,tsd->ets", weight, x)
        per_head = weight.reshape(self.heads, -1, weight.shape[1])
        return jnp.einsum("hed,tsd->etsh", per_head, x).reshape(per_head.shape[1], x.shape[0], self.log_rate.shape[0])


class ChunkMemory(eqx.Module):
    """The compact associative memory of a chunk, read into the bias of the coordinate network.

    Keys, queries and values come from the mean of the coordinates' features; see `AssociativeMemory`.
    """

    query: Float[Array, "token features"]
    key: Float[Array, "token features"]
    value: Float[Array, "values features"]
    output: Float[Array, "hidden values"]
    log_rate: Float[Array, ""]
    kernel: RandomFeatures

    def __init__(
        self,
        features: int,
        token: int,
        random_features: int,
        values: int,
        hidden: int,
        kernel: Kernel,
        *,
        key: PRNGKeyArray,
    ):
        keys = jax.random.split(key, 4)
        self.query = dense(keys[0], token, features)
        self.key = dense(keys[1], token, features)
        self.value = dense(keys[2], values, features)
        self.output = jnp.zeros((hidden, values))
        self.log_rate = jnp.array(log_rate(0.95))
        self.kernel = RandomFeatures(random_features, token, kernel, key=keys[3])

    def slots(self) -> tuple[MemorySlot, ...]:
        """The memory slots of chunks."""
        values, random = self.value.shape[0], self.kernel.size
        return (
            MemorySlot("chunk_numerator", (random, values), per="chunk"),
            MemorySlot("chunk_denominator", (random,), per="chunk"),
        )

    def __call__(
        self, features: Float[Array, "features chunks length"], chunks: Chunks
    ) -> tuple[Float[Array, "hidden chunks"], dict[str, Float[Array, "chunks ..."]]]:
        """The read, as a bias of the coordinate network, and the memory after this step has been written."""
        mask = chunks.valid.astype(features.dtype)
        mean = jnp.sum(features * mask, axis=2) / valid_count(chunks.valid, features.dtype)
        query = self.kernel(bounded(jnp.tensordot(self.query, mean, axes=1)))
        key = self.kernel(bounded(jnp.tensordot(self.key, mean, axes=1)))
        value = jnp.tensordot(self.value, mean, axes=1)
        decay = discount(self.log_rate)
        numerator = decay * chunks.memory["chunk_numerator"] + jnp.einsum("mc,vc->cmv", key, value)
        denominator = decay * chunks.memory["chunk_denominator"] + key.T
        read = jnp.einsum("mc,cmv->vc", query, numerator) / jnp.einsum("mc,cm->c", query, denominator)
        return jnp.tensordot(self.output, read, axes=1), {
            "chunk_numerator": numerator,
            "chunk_denominator": denominator,
        }
