"""The experiments on the compact associative memory: their commands run, and their theory and measurements agree."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cam import _closed_forms as theory, cost, discount, kernels, retrieval, safety
from benchmarks.cam._memories import capacities, CompactMemory, HopfieldMemory, SoftmaxMemory
from mnemo_compile.cell import bounded, Kernel

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_the_command_remakes_every_result(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "benchmarks.cam", "--tiny", "--out", str(tmp_path)]
    # Tiny experiments are all compilation.
    environment = {**os.environ, "PYTHONWARNINGS": "error", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    written = {str(tmp_path / f"{name}.{kind}") for name in NAMES for kind in ("md", "svg")}
    assert set(ran.stdout.split()) == written == {str(path) for path in tmp_path.iterdir()}
    for name in NAMES:
        text = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        tables = [line for line in text.splitlines() if line.startswith("|")]
        assert f"`python -m benchmarks.cam.{name}`" in text and len(tables) >= 5
    # A pipe within a cell would tear its row.
    for table in "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.md")).split("## ")[1:]:
        assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) == 1, table


NAMES = ("cost", "discount", "kernels", "retrieval", "safety")


def test_results_are_small() -> None:
    for path in (ROOT / "benchmarks" / "cam" / "results").iterdir():
        assert path.stat().st_size < 150_000, path


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("kernel", kernels.KERNELS)
def test_closed_forms_agree_with_monte_carlo(kernel: Kernel, orthogonal: bool) -> None:
    draws, rows, dim = 20_000, 6, 4
    drawn = kernels.projections(rows, dim, orthogonal, draws, seed=3)
    for norm, degrees in ((0.4, 0), (0.5, 60), (0.5, 150)):
        x, y = kernels.pair(norm, degrees, dim)
        mean, mse = kernels.expected(kernel, x, y, rows, orthogonal)
        estimates = kernels.measured(kernel, drawn, x, y)
        squared = (estimates - mean) ** 2
        assert abs(estimates.mean() - mean) < 4 * estimates.std() / draws**0.5
        if mse is not None:
            assert abs(squared.mean() - mse) < 4 * squared.std() / draws**0.5
        else:
            # Nobody's formula, but orthogonal rows are no worse.
            assert squared.mean() < theory.relu_mse(x, y, rows, kernels.offset())


def test_orthogonality_only_helps_and_hyperbolic_features_win_at_equal_cost() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        x, y = random.normal(size=(2, 6)) * random.uniform(0.05, 1)
        for mse in (theory.positive_mse, theory.hyperbolic_mse):
            assert 0 < mse(x, y, 12, True) <= mse(x, y, 12, False)
        assert theory.hyperbolic_mse(x, y, 6, False) <= theory.positive_mse(x, y, 12, False)
    assert theory.pairs_within_blocks(10, 4) == 4 * 3 * 2 + 2


@pytest.mark.parametrize("kernel", kernels.KERNELS)
def test_the_compact_memory_is_the_explicit_sum_and_the_cells_memory_undiscounted(kernel: Kernel) -> None:
    dim, count, scale = 6, 9, 2.0
    random = np.random.default_rng(1)
    patterns = random.choice(np.array([-1, 1], np.float32), (count, dim))
    features = kernels.with_rows(kernel, cost.normal(8, dim))
    memory = CompactMemory(features, scale)
    memory.store(patterns[:4])
    memory.store(patterns[4:])
    read = memory.read(patterns)

    phi = np.asarray(features(jnp.asarray((scale / dim) ** 0.5 * patterns.T)), np.float64)
    weights = phi.T @ phi
    np.testing.assert_allclose(read, weights @ patterns / weights.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-5)

    cell = eqx.tree_at(
        lambda m: (m.query, m.key, m.value, m.log_rate, m.kernel),
        cost.drawn_memory(dim, 1, 8),
        (jnp.eye(dim), jnp.eye(dim), jnp.eye(dim), jnp.array([-jnp.inf]), features),
    )
    # What `bounded` shrinks to keys of that scale, and values that come out as the patterns after it.
    grown = (scale / dim / (1 - scale / 4)) ** 0.5 * patterns
    np.testing.assert_allclose(np.sum(np.asarray(bounded(jnp.asarray(grown.T))) ** 2, axis=0), scale, rtol=1e-5)
    state = tuple(part[None] for part in cell.initial_state())
    last = jnp.zeros((1, 1, dim))
    for x in grown:
        last, *state = eqx.filter_jit(cell)(jnp.asarray(x)[None, None], *state)
    np.testing.assert_allclose(last[0, 0] * (patterns[0, 0] / grown[0, 0]), read[-1], rtol=1e-3, atol=1e-4)


def test_exact_attention_retrieves_as_the_theory_of_modern_hopfield_networks_says() -> None:
    dim, scale, count = 64, 16.0, 200
    patterns = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (count, dim))
    memory = SoftmaxMemory(dim, scale)
    memory.store(patterns)
    error = np.linalg.norm(memory.read(patterns) - patterns, axis=1)
    scores = scale / dim * (patterns @ patterns.T).astype(np.float64)
    separation = scale - np.where(np.eye(count, dtype=bool), -np.inf, scores).max(axis=1)
    assert (error <= 2 * dim**0.5 * (count - 1) * np.exp(-separation) + 1e-4).all()

    sizes = dataclasses.replace(retrieval.TINY, draws=4, queries=64, most=512)
    measured = retrieval.softmax(dim, 4.0, sizes, seed=0)["value", "clean"].mean
    assert 0.75 < measured / retrieval.predicted(4.0, dim) < 1.1


def test_capacity_is_the_last_size_below_which_nothing_is_lost() -> None:
    dim = 64
    patterns, corrupted = retrieval.drawn_patterns(dim, 64, 0, 0)
    assert (np.sum(patterns != corrupted, axis=1) == 6).all()
    grid = retrieval.grid(64)
    assert grid == [2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 16, 19, 23, 27, 32, 38, 45, 54, 64]
    found = capacities(lambda: HopfieldMemory(dim), patterns, corrupted, grid, 64)
    assert 5 <= found["bits", "corrupted"] <= found["bits", "clean"] <= 16
    assert set(capacities(lambda: SoftmaxMemory(dim, 60.0), patterns, corrupted, grid, 64).values()) == {64}


def test_a_pattern_fades_as_the_discount_says() -> None:
    sizes = discount.FULL
    sizes = dataclasses.replace(sizes, rates=(0.3, 0.1), steps=60, dim=8, features=128, draws=16, norm=1.0)
    found = discount.measure(sizes, seed=0)
    for slot, rate in enumerate(sizes.rates):
        np.testing.assert_allclose(found.in_memory[:, slot], np.exp(-rate * np.arange(60)), rtol=1e-4)
        weight = found.weight[:, :, slot].mean(axis=1)
        predicted = discount.predicted_weight(rate, np.arange(60), float(found.similarity.mean()))
        np.testing.assert_allclose(weight[:20], predicted[:20], rtol=0.15)
    np.testing.assert_allclose(found.error[0], 0, atol=1e-5)


def test_state_and_scratch_memory_grow_as_they_should() -> None:
    sizes = dataclasses.replace(cost.TINY, repeats=1)
    small, large = (cost.compact_step(r, 8, sizes).state for r in (16, 32))
    assert large == 2 * small == sizes.slots * 32 * (8 + 1) * 4
    assert cost.exact_step(64, 8, sizes).state == 2 * sizes.slots * 64 * 8 * 4
    series = cost.Series(cost.STEP, "exact", "n", (8, 16, 32), [cost.exact_step(n, 4, sizes) for n in (8, 16, 32)])
    assert series.slope("state") == pytest.approx(1)
    linear = [cost.compact_chunk(n, 8, 4, sizes).temporary for n in (512, 1024)]
    square = [cost.exact_chunk(n, 4, sizes).temporary for n in (512, 1024)]
    assert linear[1] < 2.5 * linear[0] and square[1] > 3.5 * square[0]


@pytest.mark.parametrize("norm", [0.5, 3.0, 30.0, 1e4])
def test_the_stable_read_is_finite_for_any_norm_and_right_until_float32_ends(norm: float) -> None:
    sizes = safety.TINY
    phi = kernels.with_rows("positive", cost.normal(sizes.features, sizes.dim))
    # Unit vectors, so that all keys have the same |k|², however it is rounded.
    axes = np.random.default_rng(5).integers(sizes.dim, size=sizes.steps + 5)
    k, q = np.split(norm * np.eye(sizes.dim, dtype=np.float32)[:, axes], [sizes.steps], axis=1)
    k, q, values = jnp.asarray(k), jnp.asarray(q), cost.normal(sizes.steps, 3)
    truth = safety.true_read(phi, k, q, values, 0.9)
    stable = np.asarray(safety.stable_read(phi, k, q, values, 0.9))
    # At 1e4 float32 has |k|²/2 in steps of 4: the weights are finite, but not those of float64.
    assert np.isfinite(stable).all() and (np.abs(stable) <= np.abs(values).max() * (1 + 1e-6)).all()
    if norm < 1e4:
        np.testing.assert_allclose(stable, truth, rtol=1e-3, atol=1e-3)
    plain = np.asarray(safety.plain_read(phi, k, q, values, 0.9))
    if norm <= 3:
        np.testing.assert_allclose(plain, truth, rtol=1e-3, atol=1e-3)
    else:
        assert np.isnan(plain).all()
