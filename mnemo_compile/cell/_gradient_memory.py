"""The memory of a coordinate: attention over its own past gradients, at constant size."""

import abc
from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..step import Role, ROLES
from ._abstract import Dtype, MemorySlot, Rows

Chunks = Float[Array, "chunks length"]

DESCRIBED = 4
"""Numbers that a coordinate's own keys and queries are made of."""
LEAST_WEIGHT = 0.1
"""Below what any normaliser is after a step: each writes at least exp(−1)."""


class Recalled(NamedTuple):
    """What a coordinate remembers after a step."""

    attended: Chunks
    """The read, Σ φ_i(q) m_i / Σ φ_i(q) ψ_i over all features of all heads."""
    heads: list[Chunks]
    """Of each head Σ m_i / Σ ψ_i over its features: the mean gradient of its horizon."""
    memory: dict[str, Chunks]


def slot_names(heads: int, features: int) -> tuple[str, ...]:
    """A name for each feature of each head, such as `fast`, or `slow_2`."""
    named = [("fast", "slow")[head] if head < 2 else f"head_{head + 1}" for head in range(heads)]
    return tuple(head if features == 1 else f"{head}_{feature + 1}" for head in named for feature in range(features))


def written(key: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """φ_i(k) = exp(tanh(w_i · x)), given w_i · x: a positive feature that is learned, and 1 where nothing is.

    A coordinate has room for so few that random ones would be mostly noise.
    """
    return jnp.exp(jnp.tanh(key))


def asked(query: Float[Array, "..."], bias: Float[Array, "..."]) -> Float[Array, "..."]:
    """φ_i(q), with a prior of how much each is asked."""
    return jnp.exp(bias + 2 * jnp.tanh(query))


def _total(arrays: list[Float[Array, "..."]]) -> Float[Array, "..."]:
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total


def _means(sums: list[Chunks], weights: list[Float[Array, "..."]], features: int) -> list[Chunks]:
    """Of each head."""
    groups = [slice(start, start + features) for start in range(0, len(sums), features)]
    return [_total(sums[group]) * (1 / _total(weights[group])) for group in groups]


class AbstractGradientMemory(eqx.Module):
    """Sums of a coordinate's gradients with weights of their own, and how they are read."""

    heads: eqx.AbstractVar[int]
    features: eqx.AbstractVar[int]
    """Of a head."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sums m, one for each feature of each head."""
        return slot_names(self.heads, self.features)

    @abc.abstractmethod
    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        """What coordinates keep."""

    @abc.abstractmethod
    def initial_state(self) -> dict[str, Float[Array, "..."]]:
        """What is kept of the tensor."""

    @abc.abstractmethod
    def before(self, memory: Mapping[str, Float[Array, "chunks ..."]], state: Rows) -> list[Chunks]:
        """The mean gradient of each head before this step."""

    @abc.abstractmethod
    def recall(
        self,
        key: Float[Array, "tensors i"],
        query: Float[Array, "tensors i"],
        bias: Float[Array, " i"],
        kept: Float[Array, " i"],
        facts: Rows,
        state: Rows,
    ) -> tuple[dict[str, Float[Array, "tensors ..."]], dict[str, Float[Array, "tensors ..."]]]:
        """What the coordinates are told, and the next state, given the tensor's w · x for keys and queries."""

    @abc.abstractmethod
    def decode(
        self,
        memory: Mapping[str, Float[Array, "chunks ..."]],
        grad: Chunks,
        root: Chunks,
        bias: Float[Array, " i"],
        kept: Float[Array, " i"],
        context: Rows,
    ) -> Recalled:
        """The memory with this step's gradient in it, and what it says; `root` is 1 over the second moment's root."""


class TensorWiseMemory(AbstractGradientMemory):
    """m_i ← λ_i m_i + φ_i(k) g in each coordinate, ψ_i ← λ_i ψ_i + φ_i(k) once a tensor.

    Keys and queries are the tensor's. With one feature that is 1, m / ψ is the bias-corrected momentum of Adam.
    """

    heads: int = eqx.field(static=True)
    features: int = eqx.field(static=True)

    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        return tuple(MemorySlot(name, dtype=dtype) for name in self.names)

    def initial_state(self) -> dict[str, Float[Array, "..."]]:
        return {"weight": jnp.zeros(len(self.names))}

    def before(self, memory: Mapping[str, Float[Array, "chunks ..."]], state: Rows) -> list[Chunks]:
        weight = jnp.maximum(state["weight"], LEAST_WEIGHT)
        weights = [weight[:, i, None] for i in range(len(self.names))]
        return _means([memory[name] for name in self.names], weights, self.features)

    def recall(
        self,
        key: Float[Array, "tensors i"],
        query: Float[Array, "tensors i"],
        bias: Float[Array, " i"],
        kept: Float[Array, " i"],
        facts: Rows,
        state: Rows,
    ) -> tuple[dict[str, Float[Array, "tensors ..."]], dict[str, Float[Array, "tensors ..."]]]:
        write, ask = written(key), asked(query, bias)
        weight = kept * state["weight"] + write
        read = ask / jnp.sum(ask * weight, axis=1)[:, None]
        return {"write": write, "weight": weight, "read": read}, {"weight": weight}

    def decode(
        self,
        memory: Mapping[str, Float[Array, "chunks ..."]],
        grad: Chunks,
        root: Chunks,
        bias: Float[Array, " i"],
        kept: Float[Array, " i"],
        context: Rows,
    ) -> Recalled:
        write, weight, read = context["write"], context["weight"], context["read"]
        sums = [kept[i] * memory[name] + write[:, i, None] * grad for i, name in enumerate(self.names)]
        attended = _total([read[:, i, None] * m for i, m in enumerate(sums)])
        means = _means(sums, [weight[:, i, None] for i in range(len(sums))], self.features)
        return Recalled(attended, means, dict(zip(self.names, sums, strict=True)))


class CoordinateWiseMemory(AbstractGradientMemory):
    """m_i ← λ_i m_i + φ_i(k) g and ψ_i ← λ_i ψ_i + φ_i(k) in each coordinate, whose key and query are its own.

    They are the tensor's, bent by what the coordinate's gradient is now. Tensors whose role is not among `roles` keep
    no ψ, and their coordinates have the keys and queries of the tensor (Super-Mnemosyne).
    """

    key: Float[Array, "i described"]
    query: Float[Array, "i described"]
    heads: int = eqx.field(static=True)
    features: int = eqx.field(static=True)
    roles: tuple[Role, ...] = eqx.field(static=True)

    def __init__(self, heads: int, features: int, roles: tuple[Role, ...]):
        self.key = jnp.zeros((heads * features, DESCRIBED))
        self.query = jnp.zeros((heads * features, DESCRIBED))
        self.heads = heads
        self.features = features
        self.roles = roles

    @property
    def is_mixed(self) -> bool:
        """Whether some tensors are tensor-wise."""
        return len(self.roles) < len(ROLES)

    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        roles = self.roles if self.is_mixed else None
        sums = tuple(MemorySlot(name, dtype=dtype) for name in self.names)
        return (*sums, *(MemorySlot(f"{name}_weight", dtype=dtype, roles=roles) for name in self.names))

    def initial_state(self) -> dict[str, Float[Array, "..."]]:
        return {"weight": jnp.zeros(len(self.names))} if self.is_mixed else {}

    def before(self, memory: Mapping[str, Float[Array, "chunks ..."]], state: Rows) -> list[Chunks]:
        weights = [jnp.maximum(memory[f"{name}_weight"], LEAST_WEIGHT) for name in self.names]
        if self.is_mixed:
            # A tensor that keeps no ψ reads zeros there; a coordinate that keeps one has written at least exp(−1).
            shared = jnp.maximum(state["weight"], LEAST_WEIGHT)
            weights = [
                jnp.where(memory[f"{name}_weight"] > 0, weight, shared[:, i, None])
                for i, (name, weight) in enumerate(zip(self.names, weights, strict=True))
            ]
        return _means([memory[name] for name in self.names], weights, self.features)

    def recall(
        self,
        key: Float[Array, "tensors i"],
        query: Float[Array, "tensors i"],
        bias: Float[Array, " i"],
        kept: Float[Array, " i"],
        facts: Rows,
        state: Rows,
    ) -> tuple[dict[str, Float[Array, "tensors ..."]], dict[str, Float[Array, "tensors ..."]]]:
        told = {"key": key, "query": query}
        if not self.is_mixed:
            return told, {}
        weight = kept * state["weight"] + written(key)
        role = facts["role"]
        own = _total([(role == ROLES.index(name)).astype(role.dtype) for name in self.roles])
        return {**told, "weight": weight, "own": own}, {"weight": weight}

    def _described(
        self, memory: Mapping[str, Float[Array, "chunks ..."]], slope: Chunks, root: Chunks
    ) -> Float[Array, "described chunks length"]:
        """What a coordinate's own keys and queries are made of: even in the sign of the gradient, and bounded."""
        weights = [jnp.maximum(memory[f"{name}_weight"], LEAST_WEIGHT) for name in self.names]
        before = _means([memory[name] for name in self.names], weights, self.features)[0] * root
        products = jnp.stack([slope * slope, before * before, slope * before])
        bounded = products * jax.lax.rsqrt(1 + products * products)
        return jnp.concatenate([bounded, jnp.abs(bounded[2:])])

    def decode(
        self,
        memory: Mapping[str, Float[Array, "chunks ..."]],
        grad: Chunks,
        root: Chunks,
        bias: Float[Array, " i"],
        kept: Float[Array, " i"],
        context: Rows,
    ) -> Recalled:
        described = self._described(memory, grad * root, root)
        if self.is_mixed:
            described = described * context["own"][:, None]
        key = written(jnp.tensordot(self.key, described, axes=1) + context["key"].T[:, :, None])
        query = jnp.tensordot(self.query, described, axes=1) + context["query"].T[:, :, None]
        ask = asked(query, bias[:, None, None])
        sums, weights, next_memory = [], [], {}
        for i, name in enumerate(self.names):
            next_memory[name] = kept[i] * memory[name] + key[i] * grad
            next_memory[f"{name}_weight"] = weight = kept[i] * memory[f"{name}_weight"] + key[i]
            if self.is_mixed:
                weight = jnp.where(context["own"][:, None] > 0, weight, context["weight"][:, i, None])
            sums.append(next_memory[name])
            weights.append(weight)
        attended = _total([ask[i] * m for i, m in enumerate(sums)])
        attended = attended / _total([ask[i] * weight for i, weight in enumerate(weights)])
        return Recalled(attended, _means(sums, weights, self.features), next_memory)


class NoGradientMemory(AbstractGradientMemory):
    """The gradient of this step is all that a coordinate knows."""

    heads: int = eqx.field(static=True, default=0)
    features: int = eqx.field(static=True, default=1)

    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        return ()

    def initial_state(self) -> dict[str, Float[Array, "..."]]:
        return {}

    def before(self, memory: Mapping[str, Float[Array, "chunks ..."]], state: Rows) -> list[Chunks]:
        return []

    def recall(
        self,
        key: Float[Array, "tensors i"],
        query: Float[Array, "tensors i"],
        bias: Float[Array, " i"],
        kept: Float[Array, " i"],
        facts: Rows,
        state: Rows,
    ) -> tuple[dict[str, Float[Array, "tensors ..."]], dict[str, Float[Array, "tensors ..."]]]:
        return {}, {}

    def decode(
        self,
        memory: Mapping[str, Float[Array, "chunks ..."]],
        grad: Chunks,
        root: Chunks,
        bias: Float[Array, " i"],
        kept: Float[Array, " i"],
        context: Rows,
    ) -> Recalled:
        return Recalled(grad, [], {})
