"""What the features do for inputs of any norm: as the cell uses them, without the bound, and in a stable form."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from scipy.special import logsumexp

from benchmarks.cam._report import parse, Table, write
from mnemo_compile.cell import bounded, RandomFeatures

WHAT = "Inputs of any norm"


@dataclasses.dataclass(frozen=True)
class Sizes:
    norms: Sequence[float]
    dim: int
    features: int
    steps: int
    discount: float
    queries: int


FULL = Sizes((1, 2, 5, 10, 20, 50, 100, 1e3, 1e4), 16, 64, 100, 0.95, 200)
TINY = Sizes((1, 1e4), 4, 8, 6, 0.9, 5)

Keys = Float[Array, "dim steps"]
Queries = Float[Array, "dim queries"]
Values = Float[Array, "steps dim"]


def exponents(phi: RandomFeatures, x: Float[Array, "dim vectors"]) -> Float[Array, "size vectors"]:
    """ln φ(x) √M of positive features, written so that it never leaves the range of floats."""
    return jnp.tensordot(phi.projection, x, axes=1) - 0.5 * jnp.sum(x * x, axis=0)


@eqx.filter_jit
def plain_read(phi: RandomFeatures, keys: Keys, queries: Queries, values: Values, decay: float) -> Array:
    """The memory as it is, without a bound on its inputs."""

    def step(state: tuple[Array, Array], x: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        key, value = phi(x[0]), x[1]
        return (decay * state[0] + key[:, None] * value, decay * state[1] + key), None

    initial = (jnp.zeros((phi.size, values.shape[1])), jnp.zeros(phi.size))
    (numerator, denominator), _ = jax.lax.scan(step, initial, (keys.T, values))
    query = phi(queries)
    return query.T @ numerator / (query.T @ denominator)[:, None]


@eqx.filter_jit
def shared_maximum_read(phi: RandomFeatures, keys: Keys, queries: Queries, values: Values, decay: float) -> Array:
    """One running maximum c for all features: N and Ψ are kept times e^{−c}; a query's own maximum cancels."""

    def step(state: tuple[Array, Array, Array], x: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        numerator, denominator, maximum = state
        exponent = exponents(phi, x[0][:, None])[:, 0]
        faded = maximum + jnp.log(decay)
        maximum = jnp.maximum(faded, jnp.max(exponent))
        old, key = jnp.exp(faded - maximum), jnp.exp(exponent - maximum)
        return (old * numerator + key[:, None] * x[1], old * denominator + key, maximum), None

    initial = (jnp.zeros((phi.size, values.shape[1])), jnp.zeros(phi.size), jnp.array(-jnp.inf))
    (numerator, denominator, _), _ = jax.lax.scan(step, initial, (keys.T, values))
    query = jnp.tensordot(phi.projection, queries, axes=1)
    query = jnp.exp(query - jnp.max(query, axis=0))
    return query.T @ numerator / (query.T @ denominator)[:, None]


@eqx.filter_jit
def stable_read(phi: RandomFeatures, keys: Keys, queries: Queries, values: Values, decay: float) -> Array:
    """A running maximum c_i for each feature: c ← max(c + ln λ, a), N_i and Ψ_i are kept times e^{−c_i}.

    With a_i = ω_iᵀk − |k|²/2 and b_i = ω_iᵀq the read is Σ_i w_i N_i / Σ_i w_i Ψ_i, w = softmax(b + c). The query's
    |q|²/2 has cancelled. Ψ_i ≥ 1, so the denominator is at least 1, whatever the inputs. What is left is the rounding
    of a, about 2⁻²⁵ |k|² in float32.
    """

    def step(state: tuple[Array, Array, Array], x: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        numerator, denominator, maximum = state
        exponent = exponents(phi, x[0][:, None])[:, 0]
        faded = maximum + jnp.log(decay)
        maximum = jnp.maximum(faded, exponent)
        old, key = jnp.exp(faded - maximum), jnp.exp(exponent - maximum)
        return (old[:, None] * numerator + key[:, None] * x[1], old * denominator + key, maximum), None

    initial = (jnp.zeros((phi.size, values.shape[1])), jnp.zeros(phi.size), jnp.full(phi.size, -jnp.inf))
    (numerator, denominator, maximum), _ = jax.lax.scan(step, initial, (keys.T, values))
    weights = jax.nn.softmax(jnp.tensordot(phi.projection, queries, axes=1) + maximum[:, None], axis=0)
    return weights.T @ numerator / (weights.T @ denominator)[:, None]


def true_read(phi: RandomFeatures, keys: Keys, queries: Queries, values: Values, decay: float) -> np.ndarray:
    """The same quotient in float64, from logarithms of its terms."""
    omega, k, q, v = (np.asarray(x, np.float64) for x in (phi.projection, keys, queries, values))
    steps = np.arange(k.shape[1])[::-1] * np.log(decay)
    key = omega @ k - 0.5 * np.sum(k * k, axis=0) + steps
    weights = logsumexp((omega @ q)[:, :, None] + key[:, None, :], axis=0)
    weights = np.exp(weights - weights.max(axis=1, keepdims=True))
    return weights @ v / weights.sum(axis=1, keepdims=True)


def relative(read: Array, truth: np.ndarray) -> tuple[float, float]:
    """The fraction of reads that are finite, and the largest ‖read − truth‖ / ‖truth‖ of those."""
    values = np.asarray(read, np.float64)
    finite = np.isfinite(values).all(axis=1)
    if not finite.any():
        return 0.0, float("nan")
    error = np.linalg.norm(values - truth, axis=1)[finite] / np.linalg.norm(truth, axis=1)[finite]
    return float(finite.mean()), float(error.max())


def read_rows(sizes: Sizes, seed: int) -> list[list[object]]:
    keys = jax.random.split(jax.random.key(seed), 4)
    phi = RandomFeatures(sizes.features, sizes.dim, "positive", key=keys[0])
    k, q = (
        jax.random.normal(key, (sizes.dim, n)) for key, n in zip(keys[1:3], (sizes.steps, sizes.queries), strict=True)
    )
    k, q = (x / jnp.linalg.norm(x, axis=0) for x in (k, q))
    values = jax.random.normal(keys[3], (sizes.steps, sizes.dim))
    rows: list[list[object]] = []
    for norm in sizes.norms:
        row: list[object] = [norm]
        inside = bounded(norm * k), bounded(norm * q)
        truth = true_read(phi, inside[0], inside[1], values, sizes.discount)
        row += relative(plain_read(phi, inside[0], inside[1], values, sizes.discount), truth)
        truth = true_read(phi, norm * k, norm * q, values, sizes.discount)
        for read in (plain_read, shared_maximum_read, stable_read):
            row += relative(read(phi, norm * k, norm * q, values, sizes.discount), truth)
        rows.append(row)
    return rows


def feature_rows(sizes: Sizes, seed: int) -> list[list[object]]:
    """The smallest and largest feature of vectors of a norm, with the bound and without it."""
    keys = jax.random.split(jax.random.key(seed), 2)
    x = jax.random.normal(keys[0], (sizes.dim, sizes.queries))
    x /= jnp.linalg.norm(x, axis=0)
    rows: list[list[object]] = []
    for kernel in ("positive", "hyperbolic", "relu"):
        phi = RandomFeatures(sizes.features, sizes.dim, kernel, key=keys[1])
        for norm in sizes.norms:
            inside, outside = phi(bounded(norm * x)), phi(norm * x)
            ends = [float(f(features)) for features in (inside, outside) for f in (jnp.min, jnp.max)]
            rows.append([kernel, norm, *ends, float(jnp.mean(outside == 0)), float(jnp.mean(~jnp.isfinite(outside)))])
    return rows


def plot(rows: list[list[object]]) -> Figure:
    figure = Figure(figsize=(7, 4.5))
    axes = figure.add_subplot()
    table = np.array(rows, float)
    names = ("bounded, as the cell uses it", "unbounded", "one running maximum", "a running maximum per feature")
    for column, name in enumerate(names):
        axes.plot(table[:, 0], table[:, 1 + 2 * column], "o-", markersize=4, label=name)
    axes.set(xscale="log", xlabel="norm of keys and queries", ylabel="fraction of reads that are finite")
    axes.legend(fontsize=8)
    return figure


def main() -> None:
    arguments = parse("safety", WHAT)
    sizes = TINY if arguments.tiny else FULL
    rows = read_rows(sizes, arguments.seed)
    reads = ("bounded", "unbounded", "unbounded, one maximum", "unbounded, a maximum per feature")
    columns = ("norm", *(f"{read}: {what}" for read in reads for what in ("finite", "largest error")))
    features = (
        "smallest, bounded",
        "largest, bounded",
        "smallest",
        "largest",
        "fraction of zeros",
        "fraction not finite",
    )
    tables = [
        Table(
            f"Reads in float32 against float64: {sizes.steps} steps, {sizes.features} positive features", columns, rows
        ),
        Table("Features", ("kernel", "norm", *features), feature_rows(sizes, arguments.seed)),
    ]
    write(arguments.out, "safety", WHAT, tables, plot(rows))


if __name__ == "__main__":
    main()
