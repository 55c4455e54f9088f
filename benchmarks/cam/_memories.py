"""The memories of the retrieval experiment: each stores patterns ±1 and recalls values for queries."""

from collections.abc import Callable
from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mnemo_compile.cell import RandomFeatures

Patterns = Float[np.ndarray, "patterns dim"]
Reads = Float[np.ndarray, "queries dim"]


@eqx.filter_jit
def jitted(features: RandomFeatures, x: Float[jax.Array, "dim vectors"]) -> Float[jax.Array, "size vectors"]:
    return features(x)


class Memory(Protocol):
    """Stores patterns, and reads; both see vectors of ±1."""

    def store(self, patterns: Patterns) -> None: ...

    def read(self, queries: Reads) -> Reads: ...


class CompactMemory:
    """The compact associative memory at λ = 1: N = Σ φ(k) vᵀ, Ψ = Σ φ(k), read as φ(q)ᵀN / φ(q)ᵀΨ.

    The key of a pattern is the pattern shrunk to squared norm `scale`, its value the pattern itself.
    """

    def __init__(self, features: RandomFeatures, scale: float):
        dim = features.projection.shape[1]
        self._features, self._scale = features, scale
        self._numerator = np.zeros((features.size, dim), np.float32)
        self._denominator = np.zeros(features.size, np.float32)

    def _phi(self, x: Patterns) -> np.ndarray:
        # One block's shape, so that φ is compiled once.
        block = 64
        padded = np.concatenate([x, np.zeros((-len(x) % block, x.shape[1]), np.float32)])
        keys = (self._scale / x.shape[1]) ** 0.5 * padded
        parts = [
            np.asarray(jitted(self._features, jnp.asarray(keys[i : i + block].T))) for i in range(0, len(keys), block)
        ]
        return np.concatenate(parts, axis=1)[:, : len(x)]

    def store(self, patterns: Patterns) -> None:
        phi = self._phi(patterns)
        self._numerator += phi @ patterns
        self._denominator += phi.sum(axis=1)

    def read(self, queries: Reads) -> Reads:
        phi = self._phi(queries)
        return phi.T @ self._numerator / (self._denominator @ phi)[:, None]


class SoftmaxMemory:
    """Exact attention, one update of a modern Hopfield network (Ramsauer et al. 2021): Xᵀ softmax(scale · X q / d)."""

    def __init__(self, dim: int, scale: float):
        self._patterns, self._scale = np.zeros((0, dim), np.float32), scale

    def store(self, patterns: Patterns) -> None:
        self._patterns = np.concatenate([self._patterns, patterns])

    def read(self, queries: Reads) -> Reads:
        scores = self._scale / queries.shape[1] * (queries @ self._patterns.T)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        return weights @ self._patterns / weights.sum(axis=1, keepdims=True)


class HopfieldMemory:
    """W = Σ ξξᵀ / d without its diagonal; neurons change one after the other until none does (Hopfield 1982)."""

    def __init__(self, dim: int, sweeps: int = 20):
        self._weights, self._sweeps = np.zeros((dim, dim), np.float32), sweeps

    def store(self, patterns: Patterns) -> None:
        self._weights += patterns.T @ patterns / patterns.shape[1]
        np.fill_diagonal(self._weights, 0)

    def read(self, queries: Reads) -> Reads:
        state = queries.T.copy()
        for _ in range(self._sweeps):
            before = state.copy()
            for neuron, weights in enumerate(self._weights):
                state[neuron] = np.where(weights @ state >= 0, 1, -1)
            if (state == before).all():
                break
        return state.T


def capacities(
    make: Callable[[], Memory],
    patterns: Patterns,
    corrupted: Patterns,
    grid: list[int],
    queries: int,
) -> dict[tuple[str, str], int]:
    """The largest number of stored patterns on the grid for which ≥ 95 % of queries are recalled, there and below.

    **Arguments:** `patterns` of ±1, stored in this order; `corrupted`, a query for each; `queries`, the number of
    stored patterns to query, at most.

    **Returns:** by criterion (`"bits"`: at most 5 % of the signs of the read are wrong; `"value"`: the read is off by
    at most half of the pattern's norm) and query (`"clean"`, `"corrupted"`).
    """
    memory, stored = make(), 0
    capacity = {(criterion, query): 1 for criterion in ("bits", "value") for query in ("clean", "corrupted")}
    alive = set(capacity)
    for count in grid:
        memory.store(patterns[stored:count])
        stored, asked = count, min(count, queries)
        target = patterns[:asked]
        for query, patterns_of_query in (("clean", target), ("corrupted", corrupted[:asked])):
            if not any((criterion, query) in alive for criterion in ("bits", "value")):
                continue
            read = memory.read(patterns_of_query)
            wrong_bits = np.mean(np.sign(read) != target, axis=1)
            error = np.linalg.norm(read - target, axis=1) / target.shape[1] ** 0.5
            for criterion, recalled in (("bits", wrong_bits <= 0.05), ("value", error <= 0.5)):
                if (criterion, query) in alive:
                    if np.mean(recalled) >= 0.95:
                        capacity[criterion, query] = count
                    else:
                        alive.discard((criterion, query))
        if not alive:
            break
    return capacity
