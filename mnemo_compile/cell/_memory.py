"""The compact associative memory: attention over the whole discounted past, at constant size."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._features import bounded, Kernel, RandomFeatures
from ._pooling import dense


def discount(log_rate: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """λ = exp(−τ) with τ = exp(log_rate) > 0."""
    return jnp.exp(-jnp.exp(log_rate))


def log_rate(discount: float) -> float:
    """The parameter for which `discount` gives this λ."""
    return math.log(-math.log(discount))


class AssociativeMemory(eqx.Module):
    """N_t = λ N_{t−1} + φ(k_t) v_tᵀ and Ψ_t = λ Ψ_{t−1} + φ(k_t), read as φ(q_t)ᵀN_t / φ(q_t)ᵀΨ_t.

    That read equals attention with kernel φ(q)ᵀφ(k) over every step so far, step s weighed by λ^{t−s}
    (Jain et al. 2023, "Mnemosyne", compact associative memory). Each of the `slots` has its own λ.
    """

    query: Float[Array, "token token"]
    key: Float[Array, "token token"]
    value: Float[Array, "token token"]
    log_rate: Float[Array, " slots"]
    kernel: RandomFeatures

    def __init__(self, token: int, slots: int, random_features: int, kernel: Kernel, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 4)
        self.query = dense(keys[0], token, token)
        self.key = dense(keys[1], token, token)
        self.value = dense(keys[2], token, token)
        # From a memory of ten steps to one of a hundred.
        self.log_rate = jnp.linspace(log_rate(0.9), log_rate(0.99), slots)
        self.kernel = RandomFeatures(random_features, token, kernel, key=keys[3])

    def initial_state(self) -> tuple[Float[Array, "slots random token"], Float[Array, "slots random"]]:
        slots, token, random = self.log_rate.shape[0], self.query.shape[0], self.kernel.size
        return jnp.zeros((slots, random, token)), jnp.zeros((slots, random))

    def __call__(
        self,
        x: Float[Array, "tensors slots token"],
        numerator: Float[Array, "tensors slots random token"],
        denominator: Float[Array, "tensors slots random"],
    ) -> tuple[
        Float[Array, "tensors slots token"],
        Float[Array, "tensors slots random token"],
        Float[Array, "tensors slots random"],
    ]:
        """What is recalled for x, and the memory with x in it."""
        query = self.kernel(bounded(jnp.einsum("ed,tsd->ets", self.query, x)))
        key = self.kernel(bounded(jnp.einsum("ed,tsd->ets", self.key, x)))
        value = jnp.einsum("ed,tsd->tse", self.value, x)
        kept = discount(self.log_rate)
        numerator = kept[:, None, None] * numerator + jnp.einsum("mts,tsd->tsmd", key, value)
        denominator = kept[:, None] * denominator + jnp.einsum("mts->tsm", key)
        read = jnp.einsum("mts,tsmd->tsd", query, numerator)
        return read / jnp.einsum("mts,tsm->ts", query, denominator)[:, :, None], numerator, denominator
