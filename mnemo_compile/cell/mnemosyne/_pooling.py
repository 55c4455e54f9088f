"""The hierarchical pooling encoder: a tensor's coordinates become chunk tokens, these become meta-tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._features import bounded, Kernel, RandomFeatures


def dense(key: PRNGKeyArray, rows: int, columns: int) -> Float[Array, "rows columns"]:
    """A weight matrix whose outputs keep the variance of its inputs."""
    return jax.random.normal(key, (rows, columns)) * columns**-0.5


class ChunkEncoder(eqx.Module):
    """First level: bidirectional Performer attention over the coordinates of a chunk, pooled to one token.

    With token t_i = W f_i of coordinate i, y_i = t_i + O (Σ_j φ(q_i)ᵀφ(k_j) v_j) / (Σ_j φ(q_i)ᵀφ(k_j)), the chunk's
    token is the mean of tanh(P y_i). Both sums are over the coordinates j of the chunk: cost linear in its length.
    """

    embed: Float[Array, "token features"]
    query: Float[Array, "token token"]
    key: Float[Array, "token token"]
    value: Float[Array, "token token"]
    output: Float[Array, "token token"]
    pool: Float[Array, "token token"]
    kernel: RandomFeatures

    def __init__(self, features: int, token: int, random_features: int, kernel: Kernel, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 7)
        self.embed = dense(keys[0], token, features)
        self.query = dense(keys[1], token, token)
        self.key = dense(keys[2], token, token)
        self.value = dense(keys[3], token, token)
        self.output = dense(keys[4], token, token)
        self.pool = dense(keys[5], token, token)
        self.kernel = RandomFeatures(random_features, token, kernel, key=keys[6])

    def __call__(
        self, features: Float[Array, "features chunks length"], valid: Bool[Array, "chunks length"]
    ) -> tuple[Float[Array, "token chunks one"], Bool[Array, "chunks one"] | None]:
        """One token per chunk, all of them valid."""
        # The compiler multiplies weights with each other once, so several maps in a row cost as much as one. The map of
        # the value comes after the sum over j. Together this saves almost half of the arithmetic.
        mask = valid.astype(features.dtype)
        query = self.kernel(bounded(jnp.tensordot(self.query @ self.embed, features, axes=1)))
        key = self.kernel(bounded(jnp.tensordot(self.key @ self.embed, features, axes=1))) * mask
        summed = jnp.einsum("mcl,fcl->cmf", key, features)
        numerator = jnp.einsum("df,cmf->cmd", self.pool @ self.output @ self.value @ self.embed, summed)
        denominator = jnp.sum(key, axis=2)
        attended = jnp.einsum("mcl,cmd->dcl", query, numerator) / jnp.einsum("mcl,mc->cl", query, denominator)
        mixed = jnp.tanh(jnp.tensordot(self.pool @ self.embed, features, axes=1) + attended)
        return (jnp.sum(mixed * mask, axis=2) / jnp.sum(mask, axis=1))[:, :, None], None


class CoordinateEncoder(eqx.Module):
    """The first level of one-level pooling, where the second level pools coordinates: token i is tanh(W f_i)."""

    embed: Float[Array, "token features"]

    def __init__(self, features: int, token: int, *, key: PRNGKeyArray):
        self.embed = dense(key, token, features)

    def __call__(
        self, features: Float[Array, "features chunks length"], valid: Bool[Array, "chunks length"]
    ) -> tuple[Float[Array, "token chunks length"], Bool[Array, "chunks length"] | None]:
        """One token per coordinate, and which of them are valid."""
        return jnp.tanh(jnp.tensordot(self.embed, features, axes=1)), valid


class TensorPooling(eqx.Module):
    """Second level: linear attention of learned queries over the tokens of a tensor's chunks, or coordinates.

    `summarise` gives each chunk's terms of A = Σ_c φ(k_c) v_cᵀ and z = Σ_c φ(k_c), to be summed over any split of the
    chunks. `read` takes the sums and gives meta-token j as φ(q_j)ᵀA / φ(q_j)ᵀz.
    """

    queries: Float[Array, "meta token"]
    key: Float[Array, "token token"]
    value: Float[Array, "token token"]
    kernel: RandomFeatures

    def __init__(self, token: int, meta_tokens: int, random_features: int, kernel: Kernel, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 4)
        self.queries = jax.random.normal(keys[0], (meta_tokens, token))
        self.key = dense(keys[1], token, token)
        self.value = dense(keys[2], token, token)
        self.kernel = RandomFeatures(random_features, token, kernel, key=keys[3])

    def summarise(
        self, tokens: Float[Array, "token chunks places"], valid: Bool[Array, "chunks places"] | None = None
    ) -> tuple[Float[Array, "chunks random token"], Float[Array, "chunks random"]]:
        key = self.kernel(bounded(jnp.tensordot(self.key, tokens, axes=1)))
        value = jnp.tensordot(self.value, tokens, axes=1)
        if valid is not None:
            key = key * valid.astype(key.dtype)
        return jnp.einsum("mcl,dcl->cmd", key, value), jnp.sum(key, axis=2).T

    def read(
        self, numerator: Float[Array, "tensors random token"], denominator: Float[Array, "tensors random"]
    ) -> Float[Array, "tensors meta token"]:
        query = self.kernel(bounded(self.queries.T))
        read = jnp.einsum("mb,tmd->tbd", query, numerator)
        return read / jnp.einsum("mb,tm->tb", query, denominator)[:, :, None]


class NetworkAttention(eqx.Module):
    """Linear attention of the meta-tokens of one tensor over those of all tensors of the network.

    `summarise` gives each tensor's terms of A = Σ φ(k) vᵀ and z = Σ φ(k), to be summed over the network. `read` takes
    the sums and gives each meta-token φ(q)ᵀA / φ(q)ᵀz.
    """

    query: Float[Array, "token token"]
    key: Float[Array, "token token"]
    value: Float[Array, "token token"]
    kernel: RandomFeatures

    def __init__(self, token: int, random_features: int, kernel: Kernel, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 4)
        self.query = dense(keys[0], token, token)
        self.key = dense(keys[1], token, token)
        self.value = dense(keys[2], token, token)
        self.kernel = RandomFeatures(random_features, token, kernel, key=keys[3])

    def summarise(
        self, tokens: Float[Array, "tensors meta token"]
    ) -> tuple[Float[Array, "tensors random token"], Float[Array, "tensors random"]]:
        key = self.kernel(bounded(jnp.einsum("ed,tbd->etb", self.key, tokens)))
        value = jnp.einsum("ed,tbd->tbe", self.value, tokens)
        return jnp.einsum("mtb,tbe->tme", key, value), jnp.sum(key, axis=2).T

    def read(
        self,
        tokens: Float[Array, "tensors meta token"],
        numerator: Float[Array, "tensors random token"],
        denominator: Float[Array, "tensors random"],
    ) -> Float[Array, "tensors meta token"]:
        query = self.kernel(bounded(jnp.einsum("ed,tbd->etb", self.query, tokens)))
        read = jnp.einsum("mtb,tme->tbe", query, numerator)
        return read / jnp.einsum("mtb,tm->tb", query, denominator)[:, :, None]
