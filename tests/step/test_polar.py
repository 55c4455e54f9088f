"""The polar factor of a tile."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.step._polar import polar
from tests.step.polynomials import of_sizes, true_polar

SEEDS = st.integers(0, 2**16)
# Few shapes, because each is compiled.
SHAPES = st.sampled_from([(1, 1), (1, 9), (5, 5), (3, 16)])
FEW = hypothesis.settings(max_examples=20, deadline=None)
AMPLIFICATION = 3.4445**5
"""What the steps multiply a small singular value by, and rounding in null directions."""

jitted = jax.jit(polar)


def factor(matrix: np.ndarray) -> np.ndarray:
    """The polar factor of one tile."""
    return np.asarray(jitted(jnp.asarray(matrix, jnp.float32)[None])[0])


def with_sizes(seed: int, shape: tuple[int, int], sizes: np.ndarray) -> np.ndarray:
    """A matrix with these singular values."""
    random = np.random.default_rng(seed)
    left, _, right = np.linalg.svd(random.normal(size=shape), full_matrices=False)
    return (left * sizes) @ right


def test_the_polynomial_brings_singular_values_near_1() -> None:
    ends = of_sizes(np.linspace(0.002, 1, 100_000))
    assert 0.67 < ends.min() and ends.max() < 1.21


@hypothesis.given(seed=SEEDS, shape=SHAPES, condition=st.floats(1, 50))
@FEW
def test_singular_values_of_a_tile_become_about_1(seed: int, shape: tuple[int, int], condition: float) -> None:
    sizes = np.geomspace(1, condition, min(shape))
    result = factor(with_sizes(seed, shape, sizes))
    ends = np.linalg.svd(result, compute_uv=False)
    assert 0.6 < ends.min() and ends.max() < 1.3


@hypothesis.given(seed=SEEDS, shape=SHAPES, rank=st.integers(0, 5), spread=st.sampled_from([1.0, 1e2, 1e8]))
@FEW
def test_it_is_the_polynomial_of_the_singular_values(
    seed: int, shape: tuple[int, int], rank: int, spread: float
) -> None:
    sizes = np.geomspace(1, 1 / spread, min(shape)) * (np.arange(min(shape)) < rank)
    matrix = np.asarray(with_sizes(seed, shape, sizes), np.float32)
    difference = np.linalg.norm(factor(matrix) - true_polar(matrix), 2)
    # Rounding of entries of at most 1, in as many products as there are rows.
    assert difference <= 4 * AMPLIFICATION * 2.0**-24


@hypothesis.given(seed=SEEDS, shape=SHAPES)
@FEW
def test_a_tile_of_rank_one_keeps_its_direction(seed: int, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(seed)
    left, right = (side / np.linalg.norm(side) for side in map(random.normal, (0, 0), (1, 1), shape))
    size = of_sizes(np.ones(1))[0]
    np.testing.assert_allclose(factor(np.outer(left, right)), size * np.outer(left, right), atol=1e-4)


def test_zero_stays_zero_beside_others() -> None:
    tiles = np.zeros((3, 3, 16), np.float32)
    tiles[1] = np.random.default_rng(0).normal(size=(3, 16))
    result = np.asarray(jitted(jnp.asarray(tiles)))
    assert not result[0].any() and not result[2].any()
    np.testing.assert_allclose(result[1], factor(tiles[1]), rtol=1e-5, atol=1e-6)


@hypothesis.given(seed=SEEDS, rows=st.integers(1, 5), columns=st.integers(1, 5))
@FEW
def test_padding_stays_zero_and_changes_nothing(seed: int, rows: int, columns: int) -> None:
    """The part may be taller than wide, as at the far end of a matrix."""
    part = np.random.default_rng(seed).normal(size=(rows, columns))
    result = factor(np.pad(part, [(0, 5 - rows), (0, 5 - columns)]))
    assert not result[rows:].any() and not result[:, columns:].any()
    difference = np.linalg.norm(result[:rows, :columns] - true_polar(np.asarray(part, np.float32)), 2)
    assert difference <= 4 * AMPLIFICATION * 2.0**-24


@hypothesis.given(seed=SEEDS, shape=SHAPES, exponent=st.integers(-80, 110))
@FEW
def test_a_scale_changes_nothing(seed: int, shape: tuple[int, int], exponent: int) -> None:
    """A power of two scales float32 without rounding."""
    matrix = np.asarray(np.random.default_rng(seed).normal(size=shape), np.float32)
    np.testing.assert_array_equal(factor(np.ldexp(matrix, exponent)), factor(matrix))


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e15, 1e35])
def test_huge_and_tiny_tiles_are_orthogonalised(scale: float) -> None:
    matrix = np.random.default_rng(0).normal(size=(3, 16))
    np.testing.assert_allclose(factor(scale * matrix), true_polar(matrix), atol=1e-4)


NUMBERS = st.sampled_from([0.0, 1e-45, 1e-38, 1e-30, 1e-12, 1.0, 1e12, 1e30, 3e38])
ENTRIES = st.tuples(NUMBERS, st.sampled_from([-1.0, 1.0])).map(lambda pair: np.float32(pair[0] * pair[1]))


@hypothesis.given(matrix=hnp.arrays(np.float32, (5, 5), elements=ENTRIES))
@FEW
def test_finite_tiles_have_finite_factors_of_bounded_size(matrix: np.ndarray) -> None:
    result = factor(matrix)
    assert np.isfinite(result).all()
    assert np.linalg.norm(result, 2) < 1.3


@hypothesis.given(seed=SEEDS)
@FEW
def test_the_factor_of_a_transposed_square_tile_is_transposed(seed: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(5, 5))
    np.testing.assert_allclose(factor(matrix.T), factor(matrix).T, atol=4 * AMPLIFICATION * 2.0**-24)
