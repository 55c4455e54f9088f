"""A coordinate's memory of its gradients: attention over its own past, at constant size."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...step import Dtype, MemorySlot, Role, ROLES
from .._records import Chunks, Rows, Tensors, Tiles
from ._memory import discount, log_rate
from ._numbers import soft_clip, total
from ._types import Grid, InitialState, NamedRows, Tile

DESCRIPTORS = 4
"""How many numbers make a coordinate's own keys and queries."""
LEAST_WEIGHT = 0.1
"""Lower than any normaliser ψ after a step, because each step writes at least exp(−1)."""


class Recollection(NamedTuple):
    """The result of reading a coordinate's memory after this step's gradient has been written."""

    attended: Grid
    """The read, Σ φ_i(q) m_i / Σ φ_i(q) ψ_i over all features of all heads."""
    heads: list[Grid]
    """Σ m_i / Σ ψ_i over the features of each head: the mean gradient over the head's horizon."""
    memory: NamedRows
    """The next memory."""


class AbstractGradientMemory(eqx.Module):
    """Weighted sums of a coordinate's gradients, and attention that reads them."""

    heads: eqx.AbstractVar[int]
    features: eqx.AbstractVar[int]
    """Features per head."""

    @abc.abstractmethod
    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        """The memory slots of coordinates."""

    @abc.abstractmethod
    def initial_state(self) -> InitialState:
        """The tensor's state before the first step."""

    @abc.abstractmethod
    def before(self, chunks: Chunks, tensors: Tensors) -> list[Grid]:
        """The mean gradient of each head before this step."""

    @abc.abstractmethod
    def recall(
        self, key: Float[Array, "tensors i"], query: Float[Array, "tensors i"], tensors: Tensors
    ) -> tuple[NamedRows, NamedRows]:
        """Context and next state. `key` and `query` are the products w · x of the tensor."""

    @abc.abstractmethod
    def decode(self, chunks: Chunks, root: Grid, context: Rows) -> Recollection:
        """Writes this step's gradient and reads the memory. `root` is 1 over the root of the second moment."""

    @abc.abstractmethod
    def attend(self, tiles: Tiles, context: Rows) -> tuple[Tile, NamedRows]:
        """The read of tiles after this step's gradient has been written, and the next memory."""


class NoGradientMemory(AbstractGradientMemory):
    """No memory: the direction sees only the gradient of this step."""

    heads: int = eqx.field(static=True, default=0)
    features: int = eqx.field(static=True, default=0)

    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        return ()

    def initial_state(self) -> InitialState:
        return {}

    def before(self, chunks: Chunks, tensors: Tensors) -> list[Grid]:
        return []

    def recall(
        self, key: Float[Array, "tensors i"], query: Float[Array, "tensors i"], tensors: Tensors
    ) -> tuple[NamedRows, NamedRows]:
        return {}, {}

    def decode(self, chunks: Chunks, root: Grid, context: Rows) -> Recollection:
        return Recollection(chunks.grad, [], {})

    def attend(self, tiles: Tiles, context: Rows) -> tuple[Tile, NamedRows]:
        return tiles.grad, {}


class TensorWiseMemory(AbstractGradientMemory):
    """m_i ← λ_i m_i + φ_i(k) g in each coordinate, ψ_i ← λ_i ψ_i + φ_i(k) once per tensor.

    All coordinates of a tensor have the same keys and queries. With one feature that equals 1, m / ψ is Adam's
    bias-corrected momentum.
    """

    log_rate: Float[Array, " heads"]
    read_bias: Float[Array, " i"]
    heads: int = eqx.field(static=True)
    features: int = eqx.field(static=True)
    """Features per head."""

    def __init__(self, momentum: tuple[float, ...], features: int):
        self.log_rate = _log_rates(momentum)
        self.read_bias = _read_bias(len(momentum), features)
        self.heads = len(momentum)
        self.features = features

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sums m."""
        return slot_names(self.heads, self.features)

    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        return tuple(MemorySlot(name, dtype=dtype) for name in self.names)

    def initial_state(self) -> InitialState:
        return {"weight": jnp.zeros(len(self.names))}

    def before(self, chunks: Chunks, tensors: Tensors) -> list[Grid]:
        weights = _columns(jnp.maximum(tensors.state["weight"], LEAST_WEIGHT))
        return _means([chunks.memory[name] for name in self.names], weights, self.features)

    def recall(
        self, key: Float[Array, "tensors i"], query: Float[Array, "tensors i"], tensors: Tensors
    ) -> tuple[NamedRows, NamedRows]:
        write, ask = key_feature(key), query_feature(query, self.read_bias)
        weight = _decay(self.log_rate, self.features) * tensors.state["weight"] + write
        read = ask / jnp.sum(ask * weight, axis=1)[:, None]
        return {"write": write, "weight": weight, "read": read}, {"weight": weight}

    def decode(self, chunks: Chunks, root: Grid, context: Rows) -> Recollection:
        decay, write, read = _decay(self.log_rate, self.features), context["write"], context["read"]
        sums = [decay[i] * chunks.memory[name] + write[:, i, None] * chunks.grad for i, name in enumerate(self.names)]
        attended = total([read[:, i, None] * m for i, m in enumerate(sums)])
        means = _means(sums, _columns(context["weight"]), self.features)
        return Recollection(attended, means, dict(zip(self.names, sums, strict=True)))

    def attend(self, tiles: Tiles, context: Rows) -> tuple[Tile, NamedRows]:
        decay = _decay(self.log_rate, self.features)
        return _attend(tiles, self.names, decay, context["write"], context["read"])


class CoordinateWiseMemory(AbstractGradientMemory):
    """m_i ← λ_i m_i + φ_i(k) g and ψ_i ← λ_i ψ_i + φ_i(k) in each coordinate, with keys and queries of its own.

    Each starts from the tensor's keys and queries and adds a function of the coordinate's own gradients. Tensors whose
    role is not among `roles` store no ψ, and their coordinates use the tensor's keys and queries (Super-Mnemosyne).
    """

    log_rate: Float[Array, " heads"]
    read_bias: Float[Array, " i"]
    key: Float[Array, "i descriptors"]
    query: Float[Array, "i descriptors"]
    heads: int = eqx.field(static=True)
    features: int = eqx.field(static=True)
    """Features per head."""
    roles: tuple[Role, ...] = eqx.field(static=True)

    def __init__(self, momentum: tuple[float, ...], features: int, roles: tuple[Role, ...]):
        self.log_rate = _log_rates(momentum)
        self.read_bias = _read_bias(len(momentum), features)
        self.key = jnp.zeros((len(momentum) * features, DESCRIPTORS))
        self.query = jnp.zeros((len(momentum) * features, DESCRIPTORS))
        self.heads = len(momentum)
        self.features = features
        self.roles = roles

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sums m."""
        return slot_names(self.heads, self.features)

    @property
    def is_mixed(self) -> bool:
        """Whether tensors of some roles use the tensor-wise memory."""
        return len(self.roles) < len(ROLES)

    def slots(self, dtype: Dtype) -> tuple[MemorySlot, ...]:
        roles = self.roles if self.is_mixed else None
        sums = tuple(MemorySlot(name, dtype=dtype) for name in self.names)
        return (*sums, *(MemorySlot(f"{name}_weight", dtype=dtype, roles=roles) for name in self.names))

    def initial_state(self) -> InitialState:
        return {"weight": jnp.zeros(len(self.names))} if self.is_mixed else {}

    def before(self, chunks: Chunks, tensors: Tensors) -> list[Grid]:
        own = self._weights(chunks)
        if not self.is_mixed:
            return self._means_before(chunks, own)
        # A tensor without ψ reads zeros there. A coordinate with ψ has written at least exp(−1).
        common = _columns(jnp.maximum(tensors.state["weight"], LEAST_WEIGHT))
        weights = [
            jnp.where(chunks.memory[f"{name}_weight"] > 0, weight, other)
            for name, weight, other in zip(self.names, own, common, strict=True)
        ]
        return self._means_before(chunks, weights)

    def recall(
        self, key: Float[Array, "tensors i"], query: Float[Array, "tensors i"], tensors: Tensors
    ) -> tuple[NamedRows, NamedRows]:
        context = {"key": key, "query": query}
        if not self.is_mixed:
            return context, {}
        weight = _decay(self.log_rate, self.features) * tensors.state["weight"] + key_feature(key)
        role = tensors.shape["role"]
        is_own = total([(role == ROLES.index(name)).astype(role.dtype) for name in self.roles])
        return {**context, "weight": weight, "own": is_own}, {"weight": weight}

    def decode(self, chunks: Chunks, root: Grid, context: Rows) -> Recollection:
        decay = _decay(self.log_rate, self.features)
        descriptors = self._descriptors(chunks, root)
        if self.is_mixed:
            descriptors = descriptors * context["own"][:, None]
        write = key_feature(jnp.tensordot(self.key, descriptors, axes=1) + context["key"].T[:, :, None])
        query = jnp.tensordot(self.query, descriptors, axes=1) + context["query"].T[:, :, None]
        ask = query_feature(query, self.read_bias[:, None, None])
        sums, weights, memory = [], [], {}
        for i, name in enumerate(self.names):
            memory[name] = decay[i] * chunks.memory[name] + write[i] * chunks.grad
            memory[f"{name}_weight"] = weight = decay[i] * chunks.memory[f"{name}_weight"] + write[i]
            if self.is_mixed:
                weight = jnp.where(context["own"][:, None] > 0, weight, context["weight"][:, i, None])
            sums.append(memory[name])
            weights.append(weight)
        attended = total([ask[i] * m for i, m in enumerate(sums)])
        attended = attended / total([ask[i] * weight for i, weight in enumerate(weights)])
        return Recollection(attended, _means(sums, weights, self.features), memory)

    def attend(self, tiles: Tiles, context: Rows) -> tuple[Tile, NamedRows]:
        """Tiles have the tensor's keys and queries."""
        ask = query_feature(context["query"], self.read_bias)
        read = ask / jnp.sum(ask * context["weight"], axis=1)[:, None]
        decay = _decay(self.log_rate, self.features)
        return _attend(tiles, self.names, decay, key_feature(context["key"]), read)

    def _weights(self, chunks: Chunks) -> list[Grid]:
        return [jnp.maximum(chunks.memory[f"{name}_weight"], LEAST_WEIGHT) for name in self.names]

    def _means_before(self, chunks: Chunks, weights: list[Grid]) -> list[Grid]:
        return _means([chunks.memory[name] for name in self.names], weights, self.features)

    def _descriptors(self, chunks: Chunks, root: Grid) -> Float[Array, "descriptors chunks length"]:
        """The numbers that make a coordinate's keys and queries. They are bounded and even in the gradient's sign."""
        slope, before = chunks.grad * root, self._means_before(chunks, self._weights(chunks))[0] * root
        bounded = soft_clip(jnp.stack([slope * slope, before * before, slope * before]), 1.0)
        return jnp.concatenate([bounded, jnp.abs(bounded[2:])])


def gradient_memory(momentum: tuple[float, ...], features: int, roles: tuple[Role, ...]) -> AbstractGradientMemory:
    """The memory with a head per discount in `momentum`; it is coordinate-wise in tensors of these roles."""
    if not momentum:
        return NoGradientMemory()
    return CoordinateWiseMemory(momentum, features, roles) if roles else TensorWiseMemory(momentum, features)


def slot_names(heads: int, features: int) -> tuple[str, ...]:
    """A name for each feature of each head, such as `fast`, or `slow_2`."""
    names = [("fast", "slow")[head] if head < 2 else f"head_{head + 1}" for head in range(heads)]
    return tuple(head if features == 1 else f"{head}_{feature + 1}" for head in names for feature in range(features))


def key_feature(key: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """φ_i(k) = exp(tanh(w_i · x)) from w_i · x: a learned positive feature, which is 1 before meta-training.

    A coordinate has room for so few features that random ones would be mostly noise.
    """
    return jnp.exp(jnp.tanh(key))


def query_feature(query: Float[Array, "..."], bias: Float[Array, "..."]) -> Float[Array, "..."]:
    """φ_i(q) from w_i · x, with a prior on how much each feature is read."""
    return jnp.exp(bias + 2 * jnp.tanh(query))


def _log_rates(momentum: tuple[float, ...]) -> Float[Array, " heads"]:
    return jnp.array([log_rate(each) for each in momentum])


def _read_bias(heads: int, features: int) -> Float[Array, " i"]:
    """The prior of the read. The fast memory leads, because the normaliser of the slow one is several times as large.

    Features of one head are read unequally, or they would all learn the same.
    """
    head, feature = np.divmod(np.arange(heads * features), features)
    return jnp.array(-5.0 * (head > 0) - 0.5 * feature, jnp.float32)


def _decay(log_rate: Float[Array, " heads"], features: int) -> Float[Array, " i"]:
    """λ of each feature. Features of one head have the same λ."""
    return jnp.repeat(discount(log_rate), features)


def _attend(
    tiles: Tiles,
    names: tuple[str, ...],
    decay: Float[Array, " i"],
    write: Float[Array, "tiles i"],
    read: Float[Array, "tiles i"],
) -> tuple[Tile, NamedRows]:
    """Σ read_i m_i of each coordinate, and the next sums m."""
    memory = {
        name: decay[i] * tiles.memory[name] + write[:, i, None, None] * tiles.grad for i, name in enumerate(names)
    }
    return total([read[:, i, None, None] * memory[name] for i, name in enumerate(names)]), memory


def _columns(rows: Float[Array, "chunks i"]) -> list[Float[Array, "chunks one"]]:
    return [rows[:, i, None] for i in range(rows.shape[1])]


def _means(sums: list[Grid], weights: list[Float[Array, "..."]], features: int) -> list[Grid]:
    """The mean of each head."""
    groups = [slice(start, start + features) for start in range(0, len(sums), features)]
    return [total(sums[group]) * (1 / total(weights[group])) for group in groups]
