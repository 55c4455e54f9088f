"""How many random patterns a compact associative memory recalls, beside exact attention and a Hopfield network."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks.cam._memories import capacities, CompactMemory, HopfieldMemory, Memory, SoftmaxMemory
from benchmarks.cam._report import Interval, interval, parse, Table, write
from mnemo_compile.cell import bounded, Kernel, RandomFeatures

WHAT = "How many patterns the memory recalls"
KERNELS: tuple[Kernel, ...] = ("positive", "hyperbolic", "relu")
CRITERIA = ("bits", "value")
QUERIES = ("clean", "corrupted")
MAIN = (("bits", "corrupted"), ("value", "clean"))
"""The cases that show recall: an echo of the query passes (bits, clean)."""

Capacity = dict[tuple[str, str], Interval]


@dataclasses.dataclass(frozen=True)
class Sizes:
    dims: Sequence[int]
    features: Sequence[int]
    dim: int
    """Where the number of features and the scale are varied."""
    feature_count: int
    """Where the dimension and the scale are varied."""
    scales: Sequence[float]
    """Squared norms of keys and queries."""
    hopfield_dims: Sequence[int]
    draws: int
    queries: int
    most: int
    """The largest number of patterns stored."""


FULL = Sizes(
    (16, 32, 64, 128), (64, 256, 1024, 4096), 64, 1024, (1, 2, 4, 8, 16, 32), (64, 128, 256, 512), 10, 64, 1024
)
TINY = Sizes((8, 16), (16,), 16, 16, (8,), (16,), 2, 8, 16)


def grid(most: int) -> list[int]:
    """Numbers of patterns a quarter of an octave apart, from 2."""
    return sorted({round(2 ** (step / 4)) for step in range(4, int(4 * np.log2(most)) + 1)})


def bounded_scale(dim: int) -> float:
    """Squared norm of a pattern of ±1 after `bounded`, as the cell's keys are."""
    return float(jnp.sum(bounded(jnp.ones(dim)) ** 2))


@functools.cache
def drawn_patterns(dim: int, count: int, seed: int, draw: int) -> tuple[np.ndarray, np.ndarray]:
    """Patterns of independent fair ±1, and the same with a tenth of each one's bits flipped."""
    random = np.random.default_rng((seed, dim, draw))
    patterns = random.choice(np.array([-1, 1], np.float32), (count, dim))
    flipped = random.random((count, dim)).argsort(axis=1) < round(dim / 10)
    return patterns, np.where(flipped, -patterns, patterns)


def draws_of(make: Callable[[int], Callable[[], Memory]], dim: int, sizes: Sizes, seed: int) -> Capacity:
    """Capacities over draws of patterns, of corruption and, by `make`, of random features."""
    samples = [
        capacities(make(draw), *drawn_patterns(dim, sizes.most, seed, draw), grid(sizes.most), sizes.queries)
        for draw in range(sizes.draws)
    ]
    return {case: interval(np.array([sample[case] for sample in samples], np.float64)) for case in samples[0]}


@functools.cache
def drawn_features(kernel: Kernel, size: int, dim: int, key: int) -> RandomFeatures:
    """`size` features as they are stored: hyperbolic ones are two per row."""
    return RandomFeatures(size // (2 if kernel == "hyperbolic" else 1), dim, kernel, key=jax.random.key(key))


def compact(kernel: Kernel, size: int, dim: int, scale: float, sizes: Sizes, seed: int) -> Capacity:
    def make(draw: int) -> Callable[[], Memory]:
        return lambda: CompactMemory(drawn_features(kernel, size, dim, 1000 * seed + draw), scale)

    return draws_of(make, dim, sizes, seed)


def softmax(dim: int, scale: float, sizes: Sizes, seed: int) -> Capacity:
    return draws_of(lambda draw: lambda: SoftmaxMemory(dim, scale), dim, sizes, seed)


def hopfield(dim: int, sizes: Sizes, seed: int) -> Capacity:
    return draws_of(lambda draw: lambda: HopfieldMemory(dim), dim, sizes, seed)


@dataclasses.dataclass(frozen=True)
class Measured:
    """Capacity by memory (`"softmax"` or a kernel), features (0 of softmax), dimension and scale."""

    capacity: dict[tuple[str, int, int, float], Capacity]
    hopfield: dict[int, Capacity]

    def best(self, memory: str, size: int, dim: int, case: tuple[str, str]) -> tuple[Interval, float]:
        """The largest mean over scales, and its scale."""
        means = [(c[case], scale) for (m, r, d, scale), c in self.capacity.items() if (m, r, d) == (memory, size, dim)]
        return max(means, key=lambda x: x[0].mean)


def measure(sizes: Sizes, seed: int) -> Measured:
    pairs = [(sizes.feature_count, dim) for dim in sizes.dims] + [(size, sizes.dim) for size in sizes.features]
    capacity: dict[tuple[str, int, int, float], Capacity] = {}
    for dim in sorted({*sizes.dims, sizes.dim}):
        for scale in (*sizes.scales, bounded_scale(dim)):
            capacity["softmax", 0, dim, scale] = softmax(dim, scale, sizes, seed)
    for kernel, (size, dim) in itertools.product(KERNELS, dict.fromkeys(pairs)):
        for scale in (*sizes.scales, bounded_scale(dim)):
            capacity[kernel, size, dim, scale] = compact(kernel, size, dim, scale, sizes, seed)
    dims = sorted({*sizes.hopfield_dims, *sizes.dims})
    return Measured(capacity, {dim: hopfield(dim, sizes, seed) for dim in dims})


def memories(measured: Measured) -> list[tuple[str, int, int]]:
    return list(dict.fromkeys(key[:3] for key in measured.capacity))


def name(memory: str, size: int) -> str:
    return "exact softmax attention" if memory == "softmax" else f"{memory}, {size} features"


def capacity_table(measured: Measured) -> Table:
    rows: list[list[object]] = []
    for memory, size, dim in memories(measured):
        row: list[object] = [name(memory, size), dim]
        for case in itertools.product(CRITERIA, QUERIES):
            best, scale = measured.best(memory, size, dim, case)
            row.append(f"{best} at {scale:.3g}")
        at_bound = measured.capacity[memory, size, dim, bounded_scale(dim)]
        rows.append([*row, *(at_bound[case] for case in MAIN)])
    for dim, capacity in measured.hopfield.items():
        rows.append(
            ["Hopfield network", dim, *(capacity[case] for case in itertools.product(CRITERIA, QUERIES)), "", ""]
        )
    cases = (f"{criterion}, {query}, best scale" for criterion, query in itertools.product(CRITERIA, QUERIES))
    columns = ("memory", "d", *cases, *(f"{', '.join(case)}, within the bound" for case in MAIN))
    return Table(
        "Capacity: mean over draws, 95 % interval, and the squared norm of keys at which it is best", columns, rows
    )


def predicted(scale: float, dim: int) -> float:
    """Patterns at which exact attention gives half of its weight to the right one: 1 + e^β / E exp(β ξᵀξ′/d)."""
    return 1 + np.exp(scale) / np.cosh(scale / dim) ** dim


def scale_table(measured: Measured, sizes: Sizes) -> Table:
    scales = sorted({*sizes.scales, bounded_scale(sizes.dim)})
    rows: list[list[object]] = []
    for case in MAIN:
        for memory, size in (("softmax", 0), *((kernel, sizes.feature_count) for kernel in KERNELS)):
            by_scale = (measured.capacity[memory, size, sizes.dim, scale][case] for scale in scales)
            rows.append([name(memory, size), ", ".join(case), *by_scale])
    rows.append(["half of exact attention's weight", "predicted", *(float(predicted(s, sizes.dim)) for s in scales)])
    return Table(
        f"What the squared norm of keys and queries does, d = {sizes.dim}",
        ("memory", "criterion, query", *(f"{scale:.3g}" for scale in scales)),
        rows,
    )


def hopfield_table(measured: Measured) -> Table:
    rows = []
    for dim, capacity in measured.hopfield.items():
        clean = capacity["bits", "clean"]
        rows.append([dim, clean, Interval(clean.mean / dim, clean.half / dim)])
    return Table("The classical Hopfield network", ("d", "capacity, clean", "capacity / d"), rows)


def plot(measured: Measured, sizes: Sizes) -> Figure:
    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(2, 3, sharey="row")
    dims = sorted(sizes.dims)
    for row, case in enumerate(MAIN):
        for kernel in KERNELS:
            by_size = [measured.best(kernel, size, sizes.dim, case)[0] for size in sizes.features]
            draw(panels[row][0], sizes.features, by_size, kernel)
            by_dim = [measured.best(kernel, sizes.feature_count, dim, case)[0] for dim in dims]
            draw(panels[row][1], dims, by_dim, kernel)
        exact = [measured.best("softmax", 0, dim, case)[0] for dim in dims]
        draw(panels[row][1], dims, exact, "exact softmax")
        draw(panels[row][1], dims, [measured.hopfield[dim][case] for dim in dims], "Hopfield")
        scales = sorted(sizes.scales)
        for memory, size in (*((kernel, sizes.feature_count) for kernel in KERNELS), ("softmax", 0)):
            by_scale = [measured.capacity[memory, size, sizes.dim, scale][case] for scale in scales]
            draw(panels[row][2], scales, by_scale, "exact softmax" if memory == "softmax" else memory)
        panels[row][2].axvline(4, color="grey", linewidth=0.8)
        panels[row][0].set_ylabel(f"patterns ({', '.join(case)})")
        panels[row][0].set_xlabel(f"features r (d = {sizes.dim}, best scale)")
        panels[row][1].set_xlabel(f"dimension d (r = {sizes.feature_count}, best scale)")
        panels[row][2].set_xlabel("squared norm of keys; grey: the bound")
    panels[0][1].legend(fontsize=8)
    return figure


def draw(axes, x: Sequence[float], capacity: Sequence[Interval], label: str) -> None:
    mean, half = np.array([(c.mean, c.half) for c in capacity]).T
    colour = {"positive": "C0", "hyperbolic": "C1", "relu": "C2", "exact softmax": "k", "Hopfield": "C3"}[label]
    axes.errorbar(x, mean, np.minimum(half, 0.99 * mean), marker="o", markersize=3, color=colour, label=label)
    axes.set(xscale="log", yscale="log")


def main() -> None:
    arguments = parse("retrieval", WHAT)
    sizes = TINY if arguments.tiny else FULL
    measured = measure(sizes, arguments.seed)
    tables = [capacity_table(measured), scale_table(measured, sizes), hopfield_table(measured)]
    write(arguments.out, "retrieval", WHAT, tables, plot(measured, sizes))


if __name__ == "__main__":
    main()
