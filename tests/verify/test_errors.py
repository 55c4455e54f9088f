"""The errors that verification measures: what counts as equal, and what never does."""

import hypothesis
import hypothesis.strategies as st
import ml_dtypes
import numpy as np

from mnemo_compile.verify._errors import distance, FLIPS, relative_error, unflipped, worst

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
