"""The prior: what a step is before anything is learned."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.cell import AbstractCell, cell_config
from mnemo_compile.step import reference
from tests.helpers import normal, trajectory
from tests.step.polynomials import true_polar

MATRIX, EMBEDDING, VECTOR = 0, 1, 2
SHAPES = [(6, 5), (64, 2), (20,)]
"""One set of shapes, so that the step of each cell is compiled once."""
STEPS = {"matrix": 0.12, "embedding": 0.066, "vector": 0.012}
SMALL_START, SMALL_FROM, LARGE_START = 0.75, 0.5, 0.25
STARTS = {"small_start": SMALL_START, "small_from": SMALL_FROM, "large_start": LARGE_START}
SETTINGS = {"steps": STEPS, "pretrained": 0.25, "warm_up": 0.1, "last_step": 0.01, **STARTS}
FEW = hypothesis.settings(max_examples=5, deadline=None)
SEEDS = st.integers(0, 2**16)
TOTALS = st.sampled_from([0, 1, 4, 30])
STARTING = st.sampled_from([0.5, 0.1, 0.03, 0.004, 1e-4])
"""Deviations of a start: large, usual, small, tiny, and as good as zero."""

Tensors = Sequence[jax.Array]


@functools.cache
def prior(annealing: str = "cosine", guard: float = 0.25, nesterov: float = 0.4) -> AbstractCell:
    """A prior alone, whose matrices of these shapes are one tile."""
    settings = {**SETTINGS, "annealing": annealing, "guard": guard, "nesterov": nesterov}
    return cell_config({"kind": "mnemosyne", "network": False, "momentum": [0.9], "prior": settings}).build()


def path(cell: AbstractCell, params: Tensors, history: Sequence[Tensors], **options: Any) -> list[list[np.ndarray]]:
    """The parameters before the first step and after each."""
    states = [trajectory(cell, SHAPES, params, history[: step + 1], **options)[0] for step in range(len(history))]
    return [[np.asarray(value) for value in tensors] for tensors in (params, *states)]


def moves(tensors: list[list[np.ndarray]], place: int) -> list[np.ndarray]:
    """The change of a tensor in each step."""
    values = [each[place] for each in tensors]
    return [after - before for before, after in zip(values, values[1:], strict=False)]


def zeros() -> list[jax.Array]:
    return [jnp.zeros(shape) for shape in SHAPES]


def rms(array: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(array, np.float64)))))


def usual(shape: tuple[int, ...]) -> float:
    """0.3 / √fan-in of a square matrix."""
    return 0.3 / math.prod(shape) ** 0.25


def matrix_reference(start: jax.Array) -> float:
    """The usual root mean square, less for a small start, more for a large one; the usual one for a start near zero."""
    own, other = rms(start), usual(start.shape)
    excess = 1 if own < 0.02 * other else own / other
    return other * max(min(excess / SMALL_FROM, 1) ** SMALL_START, 0.1) * max(excess, 1) ** LARGE_START


def schedule(step: int, total: int, annealing: str = "cosine") -> float:
    """Warm-up over a tenth of the horizon, then annealing to a hundredth; without a horizon warm-up over 20 steps."""
    if not total:
        return min((step + 1) / 20, 1)
    progress = min(step / total, 1)
    left = (1 + math.cos(math.pi * progress)) / 2 if annealing == "cosine" else 1 - progress
    return min((step + 1) / max(0.1 * total, 1), 1) * (0.01 + 0.99 * left)


def assert_moves(moved: np.ndarray, expected: np.ndarray, param: np.ndarray, rtol: float = 2e-3) -> None:
    """A move is the difference of two parameters, which are rounded."""
    atol = 2.0**-22 * float(np.abs(param).max())
    np.testing.assert_allclose(moved, expected, rtol=rtol, atol=atol + 1e-4 * float(np.abs(expected).max()))


@hypothesis.given(seed=SEEDS, total=TOTALS, annealing=st.sampled_from(["cosine", "linear"]), start=STARTING)
@FEW
def test_a_matrix_moves_along_its_polar_factor_by_the_schedule(
    seed: int, total: int, annealing: str, start: float
) -> None:
    """Under a constant gradient the direction stays. After the horizon the last fraction of the step remains."""
    params, grads = normal(seed, SHAPES, start), normal(seed + 1, SHAPES)
    count = 7
    tensors = path(prior(annealing), params, [grads] * count, total_steps=total)
    first, side = params[MATRIX], max(SHAPES[MATRIX])
    reference = matrix_reference(first)
    direction = math.sqrt(side) * true_polar(np.asarray(grads[MATRIX]))
    for step, moved in enumerate(moves(tensors, MATRIX)):
        size = STEPS["matrix"] * reference * schedule(step, total, annealing)
        assert_moves(moved, -size * direction, np.asarray(first))


def adam_direction(grad: jax.Array) -> np.ndarray:
    """Adam's direction in the first step: the signs, but for entries as small as epsilon, which is relative."""
    return np.asarray(grad) / np.sqrt(np.square(grad) + (1e-5 * rms(grad)) ** 2)


@hypothesis.given(seed=SEEDS, size=st.sampled_from([1e-4, 0.5, 20.0]), lr=st.sampled_from([0.5, 2.0]))
@FEW
def test_the_first_step_of_each_role_is_relative_to_its_reference(seed: int, size: float, lr: float) -> None:
    params, grads = normal(seed, SHAPES, size), normal(seed + 1, SHAPES)
    before, after = path(prior(nesterov=0.0), params, [grads], lr=lr, pretrained=0.0)
    references = {
        "matrix": matrix_reference(params[MATRIX]),
        "embedding": max(rms(params[EMBEDDING]), usual(SHAPES[EMBEDDING])),
        "vector": max(rms(params[VECTOR]), 1),
    }
    directions = {
        "matrix": math.sqrt(max(SHAPES[MATRIX])) * true_polar(np.asarray(grads[MATRIX])),
        "embedding": adam_direction(grads[EMBEDDING]),
        "vector": adam_direction(grads[VECTOR]),
    }
    for place, role in enumerate(("matrix", "embedding", "vector")):
        expected = -lr * STEPS[role] * references[role] * schedule(0, 0) * directions[role]
        assert_moves(after[place] - before[place], expected, before[place])


@hypothesis.given(seed=SEEDS, factor=st.sampled_from([0.25, 4.0]))
@FEW
def test_a_matrix_that_has_grown_takes_no_larger_step_and_an_embedding_does(seed: int, factor: float) -> None:
    """As if something else had changed the parameters between two steps: the first two gradients are the same."""
    params, grads = normal(seed, SHAPES), normal(seed + 1, SHAPES)
    cell = prior()
    first, state = trajectory(cell, SHAPES, params, [grads])
    plain, changed = (
        [np.asarray(after - before) for after, before in zip(resumed(cell, start, grads, state), start, strict=True)]
        for start in (first, [factor * value for value in first])
    )
    assert_moves(changed[MATRIX], plain[MATRIX], factor * np.asarray(first[MATRIX]))
    grown = max(factor * rms(first[EMBEDDING]), usual(SHAPES[EMBEDDING])) / rms(first[EMBEDDING])
    assert rms(changed[EMBEDDING]) == pytest.approx(grown * rms(plain[EMBEDDING]), rel=1e-2)


def resumed(cell: AbstractCell, params: Tensors, grads: Tensors, state: Any, **options: Any) -> list[jax.Array]:
    """The parameters after a step from this state."""
    return trajectory(cell, SHAPES, params, [grads], state=state, **options)[0]


@hypothesis.given(seed=SEEDS, waited=st.integers(1, 30), total=st.sampled_from([0, 40]))
@FEW
def test_a_tensor_whose_gradients_begin_later_begins_then(seed: int, waited: int, total: int) -> None:
    """Its warm-up starts at its first gradient, and it remembers its root mean square from there."""
    cell = prior(guard=0.0, nesterov=0.0)
    start, grads = normal(seed, SHAPES, 0.5), normal(seed + 1, SHAPES)
    idle = [jnp.zeros(SHAPES[MATRIX]), *grads[1:]]
    other = [3 * start[MATRIX], *start[1:]]
    params, state = trajectory(cell, SHAPES, other, [idle] * waited, total_steps=total)
    np.testing.assert_array_equal(params[MATRIX], other[MATRIX])
    begun = [start[MATRIX], *params[1:]]
    first, state = trajectory(cell, SHAPES, begun, [grads], state=state, total_steps=total)
    second, _ = trajectory(cell, SHAPES, first, [grads], state=state, total_steps=total)
    reference = matrix_reference(start[MATRIX])
    direction = math.sqrt(max(SHAPES[MATRIX])) * true_polar(np.asarray(grads[MATRIX]))
    for age, (before, after) in enumerate([(begun, first), (first, second)]):
        annealed = schedule(10**9, 0) if not total else schedule(waited + age, total)
        annealed /= min((waited + age + 1) / (0.1 * total), 1) if total else 1
        size = STEPS["matrix"] * reference * annealed * min((age + 1) / (0.1 * total if total else 20), 1)
        assert_moves(np.asarray(after[MATRIX] - before[MATRIX]), -size * direction, np.asarray(start[MATRIX]))


@hypothesis.given(seed=SEEDS, decay=st.sampled_from([1.0, 30.0]), lr=st.sampled_from([0.5, 1.0]), total=TOTALS)
@FEW
def test_weight_decay_is_adamws_at_its_customary_rate(seed: int, decay: float, lr: float, total: int) -> None:
    params = normal(seed, SHAPES)
    after, _ = trajectory(prior(), SHAPES, params, [zeros()] * 3, lr=lr, weight_decay=decay, total_steps=total)
    kept = math.prod(1 - lr * decay * 1e-3 * schedule(step, total) for step in range(3))
    for start, end in zip(params, after, strict=True):
        np.testing.assert_allclose(end, kept * start, rtol=1e-5)


def with_gain(seed: int, gain: Any) -> list[jax.Array]:
    """Parameters whose vector is this one."""
    return [*normal(seed, SHAPES, 0.5)[:2], jnp.asarray(gain, jnp.float32)]


LENGTH = math.prod(SHAPES[VECTOR])
TRAINED = st.builds(
    lambda seed, sign, size: sign * size * (1 + 0.1 * np.random.default_rng(seed).normal(size=LENGTH)),
    seed=SEEDS,
    sign=st.sampled_from([-1.0, 1.0]),
    size=st.sampled_from([0.1, 1.0, 30.0]),
)
FRESH = st.one_of(
    st.sampled_from([0.0, 1.0, -2.5]).map(lambda value: np.full(LENGTH, value)),
    st.builds(lambda seed: np.random.default_rng(seed).uniform(-0.3, 0.3, LENGTH), seed=SEEDS),
)


def assert_same(one: Tensors, other: Tensors) -> None:
    for x, y in zip(one, other, strict=True):
        np.testing.assert_array_equal(x, y)


@hypothesis.given(seed=SEEDS, trained=TRAINED)
@FEW
def test_a_trained_gain_makes_a_network_pretrained_for_good(seed: int, trained: np.ndarray) -> None:
    """Its steps are a quarter, from the first on, whatever becomes of the gain."""
    params, history = with_gain(seed, trained), [normal(seed + 1 + step, SHAPES) for step in range(3)]
    seen, state = trajectory(prior(), SHAPES, params, history)
    assert_same(seen, trajectory(prior(), SHAPES, params, history, pretrained=1.0)[0])
    np.testing.assert_array_equal(state.recall["pretrained"], 1)
    plain, _ = trajectory(prior(), SHAPES, params, history[:1], pretrained=0.0)
    quarter, _ = trajectory(prior(), SHAPES, params, history[:1])
    for start, x, y in zip(params, plain, quarter, strict=True):
        assert_moves(np.asarray(y - start), 0.25 * np.asarray(x - start), np.asarray(start))
    other, _ = trajectory(prior(), SHAPES, [*quarter[:2], jnp.ones(SHAPES[VECTOR])], history[1:2], state=state)
    forced, _ = trajectory(
        prior(), SHAPES, [*quarter[:2], jnp.ones(SHAPES[VECTOR])], history[1:2], state=state, pretrained=1.0
    )
    assert_same(other, forced)


@hypothesis.given(seed=SEEDS, fresh=FRESH)
@FEW
def test_a_fresh_network_is_not_taken_for_pretrained(seed: int, fresh: np.ndarray) -> None:
    """Nor are the gains that its first steps have moved."""
    params, history = with_gain(seed, fresh), [normal(seed + 1 + step, SHAPES) for step in range(4)]
    seen, state = trajectory(prior(), SHAPES, params, history)
    np.testing.assert_array_equal(state.recall["pretrained"], 0)
    assert_same(seen, trajectory(prior(), SHAPES, params, history, pretrained=0.0)[0])
    forced, _ = trajectory(prior(), SHAPES, params, history, pretrained=1.0)
    assert all(np.any(x != y) for x, y in zip(seen, forced, strict=True))


def test_random_biases_of_small_layers_are_no_trained_gains() -> None:
    """Few random numbers are often of one sign and of about one size."""
    biases = [0.3 + 0.02 * jnp.arange(length) for length in range(1, 16)]
    _, state = trajectory(prior(), [bias.shape for bias in biases], biases, [biases])
    np.testing.assert_array_equal(state.recall["pretrained"], 0)


@hypothesis.given(seed=SEEDS, sizes=st.lists(st.sampled_from([0.0, 1e-3, 0.1, 1.0, 10.0]), min_size=2, max_size=6))
@FEW
def test_the_guard_shrinks_the_steps_of_a_tensor_whose_gradients_have_shrunk(seed: int, sizes: list[float]) -> None:
    params, grads = normal(seed, SHAPES), normal(seed + 1, SHAPES)
    history = [[size * grads[MATRIX], *grads[1:]] for size in [1.0, *sizes]]
    last = []
    for guard in (0.0, 0.5):
        tensors = path(prior(guard=guard), params, history)
        last.append([moves(tensors, place)[-1] for place in range(len(SHAPES))])
    norm = weight = peak = ratio = 0.0
    for size in [1.0, *sizes]:
        norm, weight = 0.95 * norm + size * rms(grads[MATRIX]), 0.95 * weight + 1
        peak = max(peak, norm / weight)
        ratio = norm / weight / peak
    assert_moves(last[1][MATRIX], ratio**0.5 * last[0][MATRIX], np.asarray(params[MATRIX]))
    assert_moves(last[1][VECTOR], last[0][VECTOR], np.asarray(params[VECTOR]))


@pytest.mark.parametrize("small_heads", [True, False])
@pytest.mark.parametrize("deviation", [3.0, 0.01])
@pytest.mark.parametrize("is_tiled", [True, False])
def test_a_head_moves_relative_to_its_start_where_matrices_do(
    is_tiled: bool, deviation: float, small_heads: bool
) -> None:
    """Without tiles it moves relative to its present root mean square, as an embedding does."""
    shapes, (start, grad) = [(7, 12)], (normal(seed, [(7, 12)], deviation)[0] for seed in range(2))
    steps = {**STEPS, "head": 0.1}
    settings = {**SETTINGS, "steps": steps, "nesterov": 0.0, "small_heads": small_heads}
    settings |= {} if is_tiled else {"tile": 0}
    cell = cell_config({"kind": "mnemosyne", "network": False, "momentum": [0.9], "prior": settings}).build()
    layout = reference.layout_of(cell, shapes, ["head.weight"])
    state, zero = reference.init(cell, layout), {"total_steps": 0.0, "pretrained": 0.0}
    param, packed = (reference.pack(layout, [value]) for value in (start, grad))
    after, _ = reference.step(cell, layout, param, packed, state, lr=1.0, **zero)
    moved = np.asarray(reference.unpack(layout, after)[0] - start)
    own = matrix_reference(start)
    with_tiles = own if small_heads else max(own, usual((7, 12)))
    size = 0.1 * (with_tiles if is_tiled else max(rms(start), usual((7, 12)))) / 20
    assert_moves(moved, -size * adam_direction(grad), np.asarray(start))


SMALL_NETWORKS = st.lists(st.sampled_from([0.01, 0.15, 0.3, 1.0, 8.0]), min_size=1, max_size=4)
"""First root mean squares over the usual one. Only the second is below half of `small_from` and not as good as zero."""


@hypothesis.given(starts=SMALL_NETWORKS, steps=st.integers(1, 3))
@hypothesis.example(starts=[0.15, 1.0, 0.15], steps=2)
@hypothesis.example(starts=[0.15, 0.01], steps=1)
@FEW
def test_a_network_that_starts_small_takes_smaller_steps(starts: list[float], steps: int) -> None:
    """All of its tensors do. It starts small if most of its matrices do, whatever other tensors are or these become."""
    shapes = [(6, 5)] * len(starts) + [(5,), (64, 2)]
    names = [f"hidden.{place}.weight" for place in range(len(starts))] + ["hidden.bias", "token_embedding.weight"]
    scales = [*(start * usual((6, 5)) for start in starts), 1e-3, 1e-3]
    params = [scale * value / rms(value) for scale, value in zip(scales, normal(0, shapes), strict=True)]
    # Other parameters from the second step on, of another size.
    before, after = [params, [8 * value for value in params]][steps > 1], []
    for factor in (1.0, 0.25):
        settings = {**SETTINGS, "small_networks": factor}
        cell = cell_config({"kind": "mnemosyne", "network": False, "momentum": [0.9], "prior": settings}).build()
        layout = reference.layout_of(cell, shapes, names)
        state, stepped = reference.init(cell, layout), reference.pack(layout, params)
        for step in range(steps):
            param = reference.pack(layout, before if step else params)
            grad = reference.pack(layout, normal(1 + step, shapes))
            stepped, state = reference.step(cell, layout, param, grad, state, pretrained=0.0)
        after.append([np.asarray(x - y) for x, y in zip(reference.unpack(layout, stepped), before, strict=True)])
    is_small = 2 * sum(start == 0.15 for start in starts) > len(starts)
    for plain, moved, param in zip(*after, before, strict=True):
        assert_moves(moved, (0.25 if is_small else 1.0) * plain, np.asarray(param), rtol=1e-2)


@pytest.mark.parametrize(
    ("name", "shape", "side"),
    [
        ("dense.weight", (6, 5), 5),
        ("dense.weight", (9, 3), 3),
        ("dense.weight", (7, 20), 7),
        ("attention.qkv.weight", (18, 6), 6),
        ("attention.c_attn.weight", (6, 18), 6),
        ("cell.weight_ih", (24, 7), 7),
        ("experts.up", (3, 5, 9), 5),
        ("attention.query.kernel", (6, 2, 3), 6),
        ("attention.out.kernel", (2, 3, 12), 6),
    ],
)
def test_a_matrix_wider_than_a_tile_takes_smaller_steps(name: str, shape: tuple[int, ...], side: int) -> None:
    """By its shorter side, whichever axis that is, and however many matrices there are in the tensor."""
    (start,), (grad,) = normal(0, [shape]), normal(1, [shape])
    moved = []
    for wide in (0.0, 0.5):
        settings = {**SETTINGS, "tile": 4, "wide": wide}
        cell = cell_config({"kind": "mnemosyne", "network": False, "momentum": [0.9], "prior": settings}).build()
        layout = reference.layout_of(cell, [shape], [name])
        param, packed = (reference.pack(layout, [value]) for value in (start, grad))
        after, _ = reference.step(cell, layout, param, packed, reference.init(cell, layout), pretrained=0.0)
        moved.append(np.asarray(reference.unpack(layout, after)[0] - start))
    assert_moves(moved[1], min(4 / side, 1) ** 0.5 * moved[0], np.asarray(start))


def test_a_start_at_zero_moves_by_the_usual_size() -> None:
    """Such as the second matrix of an adapter of low rank."""
    grads = normal(0, SHAPES)
    after, _ = trajectory(prior(), SHAPES, zeros(), [grads])
    direction = math.sqrt(max(SHAPES[MATRIX])) * true_polar(np.asarray(grads[MATRIX]))
    assert_moves(
        np.asarray(after[MATRIX]), -STEPS["matrix"] * usual(SHAPES[MATRIX]) / 20 * direction, np.zeros(SHAPES[MATRIX])
    )
    assert rms(after[EMBEDDING]) > 0.9 * STEPS["embedding"] * usual(SHAPES[EMBEDDING]) / 20
    assert rms(after[VECTOR]) > 0.9 * STEPS["vector"] / 20
