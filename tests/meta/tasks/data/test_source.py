"""Text of the standard library."""

import itertools

import jax
import numpy as np

from mnemo_compile.meta.tasks import SPLITS
from mnemo_compile.meta.tasks.data._source import Source, SourceConfig


def test_the_target_is_the_next_symbol() -> None:
    batch = Source(SourceConfig(places=12)).batch((), jax.random.key(1), "train", 64)
    np.testing.assert_array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def test_splits_are_of_different_modules() -> None:
    texts = {split: np.asarray(text) for split, text in Source(SourceConfig()).text.items()}
    size = 300
    windows = {
        split: {text[place : place + size].tobytes() for place in range(0, len(text) - size, size)}
        for split, text in texts.items()
    }
    assert all(len(excerpts) > 50 for excerpts in windows.values())
    for one, two in itertools.permutations(SPLITS, 2):
        whole, some = texts[two].tobytes(), sorted(windows[one])[:50]
        # Modules have some text in common, such as a licence.
        assert sum(window in whole for window in some) <= 5, (one, two)
