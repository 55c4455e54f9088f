"""How well φ(x)ᵀφ(y) estimates its kernel: measured over draws of Ω, beside the closed forms."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks.cam import _closed_forms as theory
from benchmarks.cam._report import Interval, interval, parse, Table, write
from mnemo_compile.cell import Kernel, orthogonal_gaussian, RandomFeatures

WHAT = "The error of random features"
KERNELS: tuple[Kernel, ...] = ("positive", "hyperbolic", "relu")


@dataclasses.dataclass(frozen=True)
class Sizes:
    dim: int
    rows: int
    draws: int
    norms: Sequence[float]
    """Norms of x and y for which the measured error is compared with the closed form."""
    plotted: Sequence[float]
    """Norms of x = y that are measured for the plot."""
    read_features: Sequence[int]
    read_norms: Sequence[float]
    read_draws: int
    patterns: int


FULL = Sizes(8, 16, 50_000, (0.3, 0.5), (0.1, 0.2, 0.35, 0.5, 0.7, 0.85), (16, 64, 256, 1024), (0.5, 1, 1.5, 2), 50, 64)
TINY = Sizes(4, 4, 50, (0.3,), (0.2,), (4,), (0.5,), 50, 8)


def projections(rows: int, dim: int, orthogonal: bool, draws: int, seed: int) -> jax.Array:
    """Draws of Ω, `(draws, rows, dim)`: as the project makes them, or with independent Gaussian rows."""
    if orthogonal:
        return orthogonal_projections(jax.random.split(jax.random.key(seed), draws), rows, dim)
    return jnp.asarray(np.random.default_rng(seed).normal(size=(draws, rows, dim)), jnp.float32)


@functools.partial(jax.jit, static_argnames=("rows", "dim"))
def orthogonal_projections(keys: jax.Array, rows: int, dim: int) -> jax.Array:
    return jax.vmap(lambda key: orthogonal_gaussian(key, rows, dim))(keys)


def with_rows(kernel: Kernel, projection: jax.Array) -> RandomFeatures:
    """The project's features with the caller's rows, `(rows, dim)`."""
    rows, dim = projection.shape
    template = eqx.filter_eval_shape(lambda: RandomFeatures(rows, dim, kernel, key=jax.random.key(0)))
    return eqx.tree_at(lambda phi: phi.projection, template, projection)


@functools.partial(jax.jit, static_argnames="kernel")
def estimates(kernel: Kernel, drawn: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """φ(x)ᵀφ(y) for each draw of Ω, `(draws,)`."""

    def estimate(projection: jax.Array) -> jax.Array:
        phi = with_rows(kernel, projection)
        return phi(x) @ phi(y)

    return jax.vmap(estimate)(drawn)


def measured(kernel: Kernel, drawn: jax.Array, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(estimates(kernel, drawn, jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)), np.float64)


@functools.cache
def offset() -> float:
    """ε of the ReLU features, which are ε for the zero vector."""
    return float(with_rows("relu", jnp.ones((1, 1)))(jnp.zeros(1))[0])


def expected(kernel: Kernel, x: np.ndarray, y: np.ndarray, rows: int, orthogonal: bool) -> tuple[float, float | None]:
    """Mean of φ(x)ᵀφ(y) and its mean squared error, as far as there is a closed form."""
    if kernel == "relu":
        epsilon = offset()
        mse = None if orthogonal else theory.relu_mse(x, y, rows, epsilon)
        return theory.relu_kernel(x, y, rows, epsilon), mse
    mse = theory.positive_mse if kernel == "positive" else theory.hyperbolic_mse
    return theory.softmax_kernel(x, y), mse(x, y, rows, orthogonal)


def pair(norm: float, degrees: float, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Two vectors of one norm at an angle; which two does not matter, since Ω is isotropic."""
    x, y = np.zeros((2, dim))
    x[0] = norm
    y[:2] = norm * np.cos(np.radians(degrees)), norm * np.sin(np.radians(degrees))
    return x, y


def formula_rows(sizes: Sizes, seed: int) -> list[list[object]]:
    rows: list[list[object]] = []
    for orthogonal in (False, True):
        drawn = projections(sizes.rows, sizes.dim, orthogonal, sizes.draws, seed)
        for kernel, norm, degrees in itertools.product(KERNELS, sizes.norms, (0, 90)):
            x, y = pair(norm, degrees, sizes.dim)
            mean, mse = expected(kernel, x, y, sizes.rows, orthogonal)
            estimated = measured(kernel, drawn, x, y)
            squared = interval((estimated - mean) ** 2)
            ends = ["none known", ""] if mse is None else [mse, Interval(squared.mean / mse, squared.half / mse)]
            kind = "orthogonal" if orthogonal else "independent"
            rows.append([kernel, kind, norm, degrees, interval(estimated / mean), squared, *ends])
    return rows


@functools.partial(jax.jit, static_argnames="kernel")
def read_errors(kernel: Kernel, drawn: jax.Array, norm: jax.Array, patterns: jax.Array) -> jax.Array:
    """‖read − exact‖ / ‖exact‖ of attention, `(draws,)`; of `patterns`, `(draws, 3, n, dim)`, keys, queries, values."""

    def error(projection: jax.Array, patterns: jax.Array) -> jax.Array:
        phi = with_rows(kernel, projection)
        k, q = (norm * (x / jnp.linalg.norm(x, axis=1, keepdims=True)).T for x in patterns[:2])
        weights = phi(q).T @ phi(k)
        read = weights @ patterns[2] / jnp.sum(weights, axis=1, keepdims=True)
        exact = jax.nn.softmax(q.T @ k, axis=1) @ patterns[2]
        return jnp.linalg.norm(read - exact) / jnp.linalg.norm(exact)

    return jax.vmap(error)(drawn, patterns)


def read_rows(sizes: Sizes, seed: int) -> list[list[object]]:
    """A row per kernel and norm; features are counted as they are stored, two per row of Ω for hyperbolic ones."""
    drawn = projections(max(sizes.read_features), sizes.dim, True, sizes.read_draws, seed)
    patterns = np.random.default_rng(seed).normal(size=(sizes.read_draws, 3, sizes.patterns, sizes.dim))
    rows: list[list[object]] = []
    for kernel, norm in itertools.product(KERNELS, sizes.read_norms):
        counts = [count // (2 if kernel == "hyperbolic" else 1) for count in sizes.read_features]
        errors = [
            read_errors(kernel, drawn[:, :count], jnp.array(norm), jnp.asarray(patterns, jnp.float32))
            for count in counts
        ]
        rows.append([kernel, norm, *(interval(np.asarray(error, np.float64)) for error in errors)])
    return rows


def features_needed(relative_error: float) -> list[list[object]]:
    """Independent FAVOR+ features for a relative error of the kernel where a query meets its own key, x = y."""
    norms = (0.25, 0.5, 1.0, 1.5, 2.0)
    return [[norm, 4 * norm**2, float(np.ceil(np.expm1(4 * norm**2) / relative_error**2))] for norm in norms]


def offset_rows(dim: int) -> list[list[object]]:
    """How much of the mean of ReLU features is due to ε, for orthogonal unit vectors."""
    x, y = pair(1.0, 90.0, dim)
    bare, epsilon = theory.arc_cosine(x, y, 1) / 2, offset()
    counts = (8, 64, 1024, 16384, 2**20)
    return [[count, mean := theory.relu_kernel(x, y, count, epsilon), 1 - bare / mean] for count in counts]


def plot(sizes: Sizes, seed: int) -> Figure:
    """Relative error against s at one number of features, so that hyperbolic has half the rows."""
    figure = Figure(figsize=(7, 4.5))
    axes = figure.add_subplot()
    norms = np.linspace(0.08, 2, 60)
    for style, marker, orthogonal in (("--", "s", False), ("-", "o", True)):
        drawn = projections(sizes.rows, sizes.dim, orthogonal, sizes.draws, seed)
        kind = "orthogonal" if orthogonal else "independent"
        for colour, kernel in zip(("C0", "C1"), KERNELS[:2], strict=True):
            rows = sizes.rows // (2 if kernel == "hyperbolic" else 1)
            curve = [expected(kernel, *pair(norm, 0, sizes.dim), rows, orthogonal) for norm in norms]
            line = [mse**0.5 / mean for mean, mse in curve if mse is not None]
            axes.plot(4 * norms**2, line, style, color=colour, label=f"{kernel}, {kind} rows, closed form")
            for norm in sizes.plotted:
                x, y = pair(norm, 0, sizes.dim)
                relative = measured(kernel, drawn[:, :rows], x, y) / theory.softmax_kernel(x, y) - 1
                axes.plot(4 * norm**2, float(np.mean(relative**2)) ** 0.5, marker, color=colour, markersize=4)
    axes.axvline(16, color="grey", linewidth=0.8)
    axes.annotate("the bound's edge", (16, axes.get_ylim()[0]), xytext=(-4, 6), textcoords="offset points", ha="right")
    axes.set(
        xscale="log", yscale="log", xlabel="s = |x + y|², x = y", ylabel="root mean square error / exp(xᵀy)",
        title=f"{sizes.rows} features, dimension {sizes.dim}; points: {sizes.draws:,} draws",
    )  # fmt: skip
    axes.legend(fontsize=8)
    return figure


def main() -> None:
    arguments = parse("kernels", WHAT)
    sizes, seed = (TINY if arguments.tiny else FULL), arguments.seed
    tables = [
        Table(
            f"Closed form and Monte Carlo: {sizes.rows} rows, dimension {sizes.dim}, {sizes.draws:,} draws",
            (
                "kernel",
                "rows",
                "norm of x and y",
                "angle",
                "mean / its own kernel",
                "MSE",
                "closed form",
                "MSE / closed form",
            ),
            formula_rows(sizes, seed),
        ),
        Table(
            f"Error of a read against exact softmax attention over {sizes.patterns} random keys, orthogonal rows",
            ("kernel", "norm of keys and queries", *(f"{count} features" for count in sizes.read_features)),
            read_rows(sizes, seed),
        ),
        Table(
            "FAVOR+ features for a relative error of one half of the kernel at x = y",
            ("norm", "s", "features"),
            features_needed(0.5),
        ),
        Table(
            "What ε adds to ReLU features", ("rows", "mean of φ(x)ᵀφ(y)", "fraction due to ε"), offset_rows(sizes.dim)
        ),
    ]
    write(arguments.out, "kernels", WHAT, tables, plot(sizes, seed))


if __name__ == "__main__":
    main()
