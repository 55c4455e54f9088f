"""The errors that verification measures: what counts as equal, and what never does."""

from collections.abc import Sequence

import hypothesis
import hypothesis.strategies as st
import ml_dtypes
import numpy as np

from mnemo_compile.step._polar import COEFFICIENTS
from mnemo_compile.verify import STEP_BOUND
from mnemo_compile.verify._errors import distance, FLIPS, NULL, polar_error, relative_error, unflipped, worst
from tests.step.polynomials import true_polar

SEEDS = st.integers(0, 2**16)


def numbers(seed: int, size: int = 200) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=size) * 10 ** random.uniform(-3, 3, size)


@hypothesis.given(seed=SEEDS, factor=st.floats(1e-6, 1.0))
def test_an_error_is_relative(seed: int, factor: float) -> None:
    expected = numbers(seed)
    np.testing.assert_allclose(relative_error(expected * (1 + factor), expected), factor, rtol=1e-6)
    assert relative_error(expected, expected) == 0
    np.testing.assert_allclose(distance(3 * expected, expected), 3)


@hypothesis.given(seed=SEEDS, place=st.integers(0, 199), bad=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_numbers_that_are_not_finite_must_be_so_in_the_same_places(seed: int, place: int, bad: float) -> None:
    expected = numbers(seed)
    values = expected.copy()
    values[place] = bad
    assert relative_error(values, expected) == np.inf
    assert relative_error(expected, values) == np.inf
    assert relative_error(values, values) == 0
    assert relative_error(expected[:-1], expected) == np.inf
    assert worst([0.0, np.nan]) > 1e300


@hypothesis.given(seed=SEEDS, flips=st.integers(0, 40))
def test_few_neighbours_in_bfloat16_are_forgiven_and_many_are_not(seed: int, flips: int) -> None:
    exact = numbers(seed, 1000)
    expected = exact.astype(ml_dtypes.bfloat16).astype(np.float64)
    values = expected.copy()
    values[:flips] = np.nextafter(expected[:flips].astype(ml_dtypes.bfloat16), ml_dtypes.bfloat16(np.inf))
    is_few = flips <= FLIPS * len(values)
    assert np.array_equal(unflipped(values, expected), expected if is_few else values)
    far = values.copy()
    far[0] += 4 * abs(expected[0]) + 1
    assert unflipped(far, expected)[0] == far[0]


SHAPES = st.sampled_from([(1, 1), (1, 7), (5, 5), (3, 16)])
SCALES = np.array([1.0, 3.0, 11.0])
"""Those of the polar factors of three tiles."""


def tiles(seed: int, shape: tuple[int, int], null: int = 0) -> np.ndarray:
    """Three matrices whose last `null` singular values are about 10⁻⁸ of the norm, so that rounding decides them."""
    random = np.random.default_rng(seed)
    left, _, right = np.linalg.svd(random.normal(size=(3, *shape)), full_matrices=False)
    sizes = np.geomspace(1, 0.3, min(shape))
    sizes[len(sizes) - null :] = 1e-8
    return (left * sizes) @ right * 10 ** random.uniform(-9, 9, (3, 1, 1))


def factors(matrices: np.ndarray, coefficients: Sequence[Sequence[float]] = COEFFICIENTS) -> np.ndarray:
    """Scaled polar factors by these Newton–Schulz steps, in float64."""
    x = matrices / np.linalg.norm(matrices, axis=(1, 2), keepdims=True)
    for a, b, c in coefficients:
        gram = x @ np.swapaxes(x, 1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return SCALES[:, None, None] * x


def null_part(seed: int, matrices: np.ndarray, size: float) -> np.ndarray:
    """Scaled errors of this norm between the null directions of matrices with one."""
    left, _, right = np.linalg.svd(matrices, full_matrices=False)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (3, 1, 1))
    return SCALES[:, None, None] * size * signs * left[:, :, -1:] * right[:, -1:, :]


@hypothesis.given(seed=SEEDS, shape=SHAPES)
def test_right_polar_factors_have_no_error(seed: int, shape: tuple[int, int]) -> None:
    matrices = tiles(seed, shape)
    expected = SCALES[:, None, None] * true_polar(matrices)
    assert polar_error(factors(matrices), expected, matrices, SCALES) < 1e-12


@hypothesis.given(
    seed=SEEDS, shape=SHAPES, step=st.integers(0, 4), place=st.integers(0, 2), factor=st.sampled_from([0.99, 1.01])
)
def test_a_changed_coefficient_is_an_error(
    seed: int, shape: tuple[int, int], step: int, place: int, factor: float
) -> None:
    matrices = tiles(seed, shape)
    changed = [list(each) for each in COEFFICIENTS]
    changed[step][place] *= factor
    values = factors(matrices, changed)
    assert polar_error(values, factors(matrices), matrices, SCALES) > STEP_BOUND


@hypothesis.given(seed=SEEDS, shape=SHAPES, tile=st.integers(0, 2), factor=st.sampled_from([0.0, 0.5, 0.999, 1.001, 2]))
def test_a_wrong_scale_of_one_tile_is_an_error(seed: int, shape: tuple[int, int], tile: int, factor: float) -> None:
    matrices = tiles(seed, shape)
    values = factors(matrices)
    values[tile] *= factor
    error = polar_error(values, factors(matrices), matrices, SCALES)
    assert error >= 0.99 * abs(factor - 1), "however small the tile is beside the others"


@hypothesis.given(seed=SEEDS, shape=st.sampled_from([(5, 5), (3, 16)]), size=st.floats(0, 1.2))
def test_rounding_in_a_null_direction_is_forgiven_up_to_the_bound(
    seed: int, shape: tuple[int, int], size: float
) -> None:
    matrices = tiles(seed, shape, null=1)
    expected = SCALES[:, None, None] * true_polar(matrices)
    assert polar_error(expected + null_part(seed, matrices, size), expected, matrices, SCALES) < 1e-12
    beyond = expected + null_part(seed, matrices, 1.4)
    assert polar_error(beyond, expected, matrices, SCALES) == np.inf


@hypothesis.given(seed=SEEDS, size=st.sampled_from([1e-3, 0.1]))
def test_an_error_between_directions_that_are_not_null_is_not_forgiven(seed: int, size: float) -> None:
    matrices = tiles(seed, (5, 5), null=1)
    expected = SCALES[:, None, None] * true_polar(matrices)
    left, sizes, right = np.linalg.svd(matrices)
    assert (sizes[:, -2] > NULL * np.linalg.norm(sizes, axis=1)).all()
    between = SCALES[:, None, None] * size * left[:, :, :1] @ right[:, 3:4, :]
    assert polar_error(expected + between, expected, matrices, SCALES) > 0.3 * size


def test_factors_of_zero_are_zero_and_those_that_are_not_finite_are_wrong() -> None:
    zero = np.zeros((3, 3, 16))
    assert polar_error(zero, zero, zero, SCALES) == 0
    for bad in (np.nan, np.inf):
        values = zero.copy()
        values[1, 2, 3] = bad
        assert polar_error(values, zero, zero, SCALES) == np.inf
    assert polar_error(zero[:2], zero, zero, SCALES) == np.inf
    assert polar_error(zero + 2, zero, zero, SCALES) == np.inf
