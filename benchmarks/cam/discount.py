"""What the discount λ = exp(−τ) leaves of a pattern: in the memory, in the weights of the read, in what is read."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from benchmarks.cam._report import interval, number, parse, Table, write
from mnemo_compile.cell import AssociativeMemory, bounded, discount

WHAT = "What the discount leaves of a pattern"


@dataclasses.dataclass(frozen=True)
class Sizes:
    rates: Sequence[float]
    """τ, one per slot of the memory."""
    steps: int
    dim: int
    """Length of keys and queries."""
    features: int
    draws: int
    norm: float
    """Norm of keys and queries, after `bounded`."""


FULL = Sizes((0.5, 0.2, 0.1, 0.05, 0.02), 400, 16, 512, 32, 1.5)
TINY = Sizes((0.2, 0.05), 80, 4, 16, 4, 1.0)


@dataclasses.dataclass(frozen=True)
class Course:
    """What is left of the pattern stored at step 0, after t = 0, 1, … steps."""

    in_memory: Float[np.ndarray, "steps rates"]
    """The pattern's part of N_t, relative to what was written."""
    weight: Float[np.ndarray, "steps draws rates"]
    """The pattern's fraction of the weights, when its own key is the query."""
    error: Float[np.ndarray, "steps draws rates"]
    """‖read − value‖ / ‖value‖."""
    similarity: Float[np.ndarray, " draws"]
    """φ(k_0)ᵀφ(k_0) over the mean of φ(k_0)ᵀφ(k_s): how much better than others the pattern fits its own key."""


def memory_of_parts(sizes: Sizes, key: jax.Array) -> AssociativeMemory:
    """A memory whose input is (key, query, value, mark) side by side, each read off by a projection."""
    token, dim = 3 * sizes.dim + 1, sizes.dim
    memory = eqx.filter_jit(AssociativeMemory)(token, len(sizes.rates), sizes.features, "positive", key=key)
    place = jnp.eye(token)
    return eqx.tree_at(
        lambda m: (m.key, m.query, m.value, m.log_rate),
        memory,
        (
            jnp.zeros((token, token)).at[:dim].set(place[:dim]),
            jnp.zeros((token, token)).at[:dim].set(place[dim : 2 * dim]),
            jnp.zeros((token, token)).at[: dim + 1].set(place[2 * dim :]),
            jnp.log(jnp.array(sizes.rates)),
        ),
    )


def unbounded(norm: float) -> float:
    """The norm that `bounded` shrinks to this one."""
    return norm / (1 - norm**2 / 4) ** 0.5


def measure(sizes: Sizes, seed: int) -> Course:
    """Stores a pattern at step 0 and random ones after it, and queries the first at every step."""
    dim = sizes.dim
    keys = jax.random.split(jax.random.key(seed), 3)
    memory = memory_of_parts(sizes, keys[0])
    stored = jax.random.normal(keys[1], (sizes.steps, sizes.draws, dim))
    stored *= unbounded(sizes.norm) / jnp.linalg.norm(stored, axis=2, keepdims=True)
    values = jax.random.rademacher(keys[2], (sizes.steps, sizes.draws, dim), stored.dtype)
    asked = jnp.broadcast_to(stored[0], stored.shape)
    # One at step 0 and zero after: what is read of it is the first pattern's weight.
    mark = jnp.zeros((sizes.steps, sizes.draws, 1)).at[0].set(1)
    inputs = jnp.concatenate([stored, asked, values, mark], axis=2)

    @jax.jit
    def run(inputs: Float[Array, "steps draws token"]) -> tuple[Array, Array]:
        def step(state: tuple[Array, Array], x: Float[Array, "draws token"]) -> tuple[tuple[Array, Array], tuple]:
            slots = jnp.broadcast_to(x[:, None], (x.shape[0], len(sizes.rates), x.shape[1]))
            read, numerator, denominator = memory(slots, *state)
            return (numerator, denominator), (read, jnp.linalg.norm(numerator[0, :, :, dim], axis=1))

        numerator, denominator = (jnp.broadcast_to(p, (sizes.draws, *p.shape)) for p in memory.initial_state())
        return jax.lax.scan(step, (numerator, denominator), inputs)[1]

    read, traces = (np.asarray(x, np.float64) for x in run(inputs))
    error = np.linalg.norm(read[..., :dim] - np.asarray(values)[0][:, None], axis=3) / dim**0.5
    # The key's part of the input, padded to a token.
    padded = jnp.moveaxis(inputs.at[..., dim:].set(0), 2, 0)
    phi = np.asarray(memory.kernel(bounded(padded)), np.float64)
    fits = np.einsum("mtd,md->td", phi, phi[:, 0])
    return Course(traces / traces[0], read[..., dim], error, fits[0] / fits[1:].mean(axis=0))


def predicted_weight(rate: float, steps: Float[np.ndarray, " steps"], similarity: float) -> Float[np.ndarray, " steps"]:
    """λ^t g / (λ^t g + Σ_{s=1}^{t} λ^{t−s}), g the similarity: as if all other patterns fitted the query alike."""
    left = np.exp(-rate * steps)
    return left * similarity / (left * similarity + (1 - left) / -np.expm1(-rate))


def slope(y: Float[np.ndarray, " steps"], first: int, last: int) -> float:
    """Slope of ln y against t by least squares, first ≤ t < last."""
    return float(np.polyfit(np.arange(first, last), np.log(y[first:last]), 1)[0])


def rate_table(sizes: Sizes, course: Course) -> Table:
    rows: list[list[object]] = []
    for slot, rate in enumerate(sizes.rates):
        traces, decay = course.in_memory[:, slot], float(discount(jnp.log(jnp.array(rate))))
        total = float(traces.sum())
        # Where the sum of the weights has settled, and what is left is far above float32's rounding.
        first, last = round(3 / rate), min(round(8 / rate), sizes.steps)
        rows.append(
            [
                rate, decay, total, 1 / (1 - decay),
                total**2 / float(np.sum(traces**2)), (1 + decay) / (1 - decay), float(np.log(2)) / rate,
                slope(traces, 0, last), slope(course.weight[:, :, slot].mean(axis=1), first, last),
            ]
        )  # fmt: skip
    columns = (
        "τ", "λ", "Σ λ^t, measured", "1/(1−λ)", "(Σ λ^t)²/Σ λ^2t, measured", "(1+λ)/(1−λ)", "half-life ln 2/τ",
        "slope of ln, in the memory", "slope of ln, weight of the read",
    )  # fmt: skip
    return Table("The horizon, and what is left of a pattern", columns, rows)


def recall_table(sizes: Sizes, course: Course) -> Table:
    rows: list[list[object]] = []
    similarity = interval(course.similarity)
    for slot, rate in enumerate(sizes.rates):
        steps = np.sum(np.cumprod(course.weight[:, :, slot] >= 0.5, axis=0), axis=0) - 1
        recalled = np.sum(np.cumprod(course.error[:, :, slot] <= 0.5, axis=0), axis=0) - 1
        limit = np.log1p(similarity.mean * -np.expm1(-rate)) / rate
        rows.append([rate, interval(steps.astype(float)), interval(recalled.astype(float)), float(limit)])
    return Table(
        f"Steps for which a pattern is recalled by its own key (g = {similarity})",
        ("τ", "its weight is at least a half", "the read is off by at most a half", "ln(1 + g (1−λ)) / τ"),
        rows,
    )


def plot(sizes: Sizes, course: Course) -> Figure:
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for slot, rate in enumerate(sizes.rates):
        count = min(sizes.steps, round(8 / rate))
        steps = np.arange(count)
        similarity = float(course.similarity.mean())
        left.plot(steps, course.weight[:count, :, slot].mean(axis=1), color=f"C{slot}", label=f"τ = {number(rate)}")
        left.plot(steps, predicted_weight(rate, steps, similarity), ":", color=f"C{slot}")
        right.plot(steps, course.error[:count, :, slot].mean(axis=1), color=f"C{slot}")
    left.set(yscale="log", xlabel="steps since the pattern", ylabel="its fraction of the read (dotted: predicted)")
    right.set(xlabel="steps since the pattern", ylabel="‖read − value‖ / ‖value‖", xlim=(0, 60))
    left.legend(fontsize=8)
    return figure


def main() -> None:
    arguments = parse("discount", WHAT)
    sizes = TINY if arguments.tiny else FULL
    course = measure(sizes, arguments.seed)
    write(
        arguments.out, "discount", WHAT, [rate_table(sizes, course), recall_table(sizes, course)], plot(sizes, course)
    )


if __name__ == "__main__":
    main()
