"""Data that are functions of coordinates."""

import jax
import numpy as np

from mnemo_compile.meta.tasks import SPLITS
from mnemo_compile.meta.tasks.data._phantom import Phantom, PhantomConfig
from mnemo_compile.meta.tasks.data._photograph import Photograph, PhotographConfig
from mnemo_compile.meta.tasks.data._sinusoids import Sinusoids, SinusoidsConfig


def test_a_pixel_of_a_photograph_belongs_to_one_split_and_has_its_colour() -> None:
    data = Photograph(PhotographConfig(side=8))
    square = np.asarray(data.draw(jax.random.key(0))).reshape(8, 8, 3)
    pixels: dict[str, set[tuple[int, int]]] = {}
    for split in SPLITS:
        batch = data.batch(square.reshape(-1, 3), jax.random.key(1), split, 256)
        places = np.rint((np.asarray(batch.inputs) + 1) * 3.5).astype(int)
        np.testing.assert_array_equal(square[places[:, 0], places[:, 1]], batch.targets)
        pixels[split] = {(int(row), int(column)) for row, column in places}
    assert not any(pixels[a] & pixels[b] for a in SPLITS for b in SPLITS if a != b)
    assert len(pixels["train"]) > 40


def test_a_phantom_is_the_sum_of_the_ellipses_that_hold_a_point() -> None:
    data = Phantom(PhantomConfig(ellipses=3))
    instance = data.draw(jax.random.key(0))
    batch = data.batch(instance, jax.random.key(1), "train", 64)
    centre, radii, angle, density = (np.asarray(each) for each in instance)
    for point, value in zip(np.asarray(batch.inputs), np.asarray(batch.targets), strict=True):
        expected = 0.0
        for place in range(3):
            turn = np.array(
                [[np.cos(angle[place]), np.sin(angle[place])], [-np.sin(angle[place]), np.cos(angle[place])]]
            )
            is_inside = np.sum((turn @ (point - centre[place]) / radii[place]) ** 2) < 1
            expected += density[place] * is_inside
        np.testing.assert_allclose(value, expected, atol=1e-5)


def test_sinusoids_have_variance_1() -> None:
    data = Sinusoids(SinusoidsConfig(count=6))
    batch = data.batch(data.draw(jax.random.key(0)), jax.random.key(1), "train", 4096)
    assert abs(float(np.std(batch.inputs)) - 1) < 0.05 and abs(float(np.std(batch.targets)) - 1) < 0.05
