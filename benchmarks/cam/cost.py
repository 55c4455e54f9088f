"""Time and memory of the compact associative memory beside exact attention, against history, coordinates, r and d."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks.cam._report import number, parse, Table, write
from mnemo_compile.cell import AssociativeMemory, bounded

WHAT = "What a step costs"
STEP, CHUNK = "one step against a history", "all coordinates against each other"


@dataclasses.dataclass(frozen=True)
class Sizes:
    histories: Sequence[int]
    coordinates: Sequence[int]
    features: Sequence[int]
    dims: Sequence[int]
    feature_count: int
    dim: int
    slots: int
    """Memories read at a step, so that the time is that of the arithmetic."""
    repeats: int


FULL = Sizes(
    (64, 256, 1024, 4096, 16384), (128, 256, 512, 1024, 2048, 4096), (64, 128, 256, 512, 1024), (16, 32, 64, 128, 256),
    64, 32, 16, 30,
)  # fmt: skip
TINY = Sizes((8, 16), (8, 16), (4, 8), (4, 8), 4, 4, 2, 2)


@dataclasses.dataclass(frozen=True)
class Cost:
    seconds: float
    """The median of repeats, compiled and warm."""
    state: int
    """Bytes kept from one step to the next."""
    temporary: int
    """Bytes of XLA's scratch memory."""


State = tuple[jax.Array, ...]


def cost(function: Callable[..., Any], arguments: tuple[Any, ...], state: State, repeats: int) -> Cost:
    """Cost of `function(*arguments, *state)`, whose last results are the next state and replace this one."""
    places = tuple(range(len(arguments), len(arguments) + len(state)))
    # A memory is a callable that cannot be hashed.
    compiled = jax.jit(lambda *inputs: function(*inputs), donate_argnums=places).lower(*arguments, *state).compile()
    state_bytes = sum(part.nbytes for part in state)
    seconds = []
    for _ in range(repeats + 3):
        started = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments, *state))
        seconds.append(time.perf_counter() - started)
        state = result[len(result) - len(state) :]
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return Cost(statistics.median(seconds[3:]), state_bytes, analysis.temp_size_in_bytes)


def normal(*shape: int) -> jax.Array:
    """Numbers to compute with; the cost does not depend on their values."""
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def drawn_memory(dim: int, slots: int, features: int) -> AssociativeMemory:
    """The project's memory, with any weights."""
    make = functools.partial(AssociativeMemory, dim, slots, features, "positive", key=jax.random.key(0))
    return jax.tree.map(lambda leaf: normal(*leaf.shape), eqx.filter_eval_shape(make))


def compact_step(features: int, dim: int, sizes: Sizes) -> Cost:
    """The project's memory: writes the step's key and value and reads."""
    memory = drawn_memory(dim, sizes.slots, features)
    state = tuple(part[None] for part in memory.initial_state())
    return cost(memory, (normal(1, sizes.slots, dim),), state, sizes.repeats)


def exact_step(history: int, dim: int, sizes: Sizes) -> Cost:
    """Softmax attention with the same projections over a buffer of all keys and values, written in place."""
    memory = drawn_memory(dim, sizes.slots, 1)

    def step(
        x: jax.Array, place: jax.Array, keys: jax.Array, values: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        query, key = (bounded(jnp.einsum("ed,sd->es", w, x)).T for w in (memory.query, memory.key))
        value = jnp.einsum("ed,sd->se", memory.value, x)
        keys = jax.lax.dynamic_update_slice(keys, key[:, None], (0, place, 0))
        values = jax.lax.dynamic_update_slice(values, value[:, None], (0, place, 0))
        weights = jax.nn.softmax(jnp.einsum("sd,snd->sn", query, keys), axis=1)
        return jnp.einsum("sn,snd->sd", weights, values), keys, values

    state = (normal(sizes.slots, history, dim), normal(sizes.slots, history, dim))
    return cost(step, (normal(sizes.slots, dim), jnp.array(history - 1)), state, sizes.repeats)


def compact_chunk(count: int, features: int, dim: int, sizes: Sizes) -> Cost:
    """Bidirectional attention over `count` coordinates as two contractions with φ."""
    phi = drawn_memory(dim, 1, features).kernel

    def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array]:
        query, key = phi(bounded(query)), phi(bounded(key))
        return ((query.T @ (key @ value)) / (query.T @ jnp.sum(key, axis=1))[:, None],)

    return cost(attend, (normal(dim, count), normal(dim, count), normal(count, dim)), (), sizes.repeats)


def exact_chunk(count: int, dim: int, sizes: Sizes) -> Cost:
    """Bidirectional softmax attention over `count` coordinates."""

    def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array]:
        return (jax.nn.softmax(bounded(query).T @ bounded(key), axis=1) @ value,)

    return cost(attend, (normal(dim, count), normal(dim, count), normal(count, dim)), (), sizes.repeats)


@dataclasses.dataclass(frozen=True)
class Series:
    what: str
    memory: str
    against: str
    x: Sequence[int]
    costs: Sequence[Cost]

    def slope(self, quantity: str) -> float:
        """Slope of log cost against log size over the upper half of the sizes; 0 where the cost is 0."""
        half = len(self.x) // 2 if len(self.x) > 2 else 0
        y = np.array([getattr(c, quantity) for c in self.costs[half:]], float)
        if not y.all():
            return 0.0
        return round(float(np.polyfit(np.log(self.x[half:]), np.log(y), 1)[0]), 6) + 0.0


def measure(sizes: Sizes) -> list[Series]:
    r, d = sizes.feature_count, sizes.dim
    once = compact_step(r, d, sizes)
    n = max(sizes.coordinates) // 2
    return [
        # The memory has no history to be long: one measurement stands for all.
        Series(STEP, "compact", "n", sizes.histories, [once] * len(sizes.histories)),
        Series(STEP, "exact", "n", sizes.histories, [exact_step(n, d, sizes) for n in sizes.histories]),
        Series(STEP, "compact", "r", sizes.features, [compact_step(r, d, sizes) for r in sizes.features]),
        Series(STEP, "compact", "d", sizes.dims, [compact_step(r, d, sizes) for d in sizes.dims]),
        Series(CHUNK, "compact", "n", sizes.coordinates, [compact_chunk(n, r, d, sizes) for n in sizes.coordinates]),
        Series(CHUNK, "exact", "n", sizes.coordinates, [exact_chunk(n, d, sizes) for n in sizes.coordinates]),
        Series(CHUNK, "compact", "r", sizes.features, [compact_chunk(n, r, d, sizes) for r in sizes.features]),
        Series(CHUNK, "compact", "d", sizes.dims, [compact_chunk(n, r, d, sizes) for d in sizes.dims]),
        Series(CHUNK, "exact", "d", sizes.dims, [exact_chunk(n, d, sizes) for d in sizes.dims]),
    ]


def slope_table(series: Sequence[Series]) -> Table:
    rows = [
        [
            s.what,
            s.memory,
            s.against,
            f"{s.x[0]}–{s.x[-1]}",
            *(f"{s.slope(q):.2f}" for q in ("seconds", "state", "temporary")),
        ]
        for s in series
    ]
    columns = ("what", "memory", "against", "range", "slope of time", "slope of state", "slope of scratch memory")
    return Table("Exponents: the slope of log cost against log size, over the upper half of the range", columns, rows)


def cost_table(series: Sequence[Series]) -> Table:
    rows = [
        [s.what, s.memory, f"{s.against} = {x}", c.seconds * 1e6, c.state, c.temporary]
        for s in series
        for x, c in zip(s.x, s.costs, strict=True)
    ]
    columns = ("what", "memory", "size", "microseconds", "state, bytes", "scratch memory, bytes")
    return Table("Everything measured", columns, rows)


def plot(series: Sequence[Series], sizes: Sizes) -> Figure:
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, (what, quantity) in zip(
        figure.subplots(1, 3), ((STEP, "seconds"), (STEP, "state"), (CHUNK, "seconds")), strict=True
    ):
        for s in series:
            if s.what == what and s.against == "n":
                label = f"{s.memory}, slope {number(s.slope(quantity), 2)}"
                axes.plot(s.x, [getattr(c, quantity) for c in s.costs], "o-", markersize=3, label=label)
        axes.set_xscale("log", base=2)
        axes.set(yscale="log", xlabel="n", title=what, ylabel="state, bytes" if quantity == "state" else quantity)
        axes.legend(fontsize=8)
    figure.suptitle(f"r = {sizes.feature_count}, d = {sizes.dim}; {sizes.slots} memories in the steps")
    return figure


def main() -> None:
    arguments = parse("cost", WHAT)
    sizes = TINY if arguments.tiny else FULL
    series = measure(sizes)
    write(arguments.out, "cost", WHAT, [slope_table(series), cost_table(series)], plot(series, sizes))


if __name__ == "__main__":
    main()
