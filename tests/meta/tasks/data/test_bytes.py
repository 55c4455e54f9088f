"""Bytes of Python's sources."""

import itertools

import jax
import numpy as np
import pytest

from mnemo_compile.meta.tasks import SPLITS
from mnemo_compile.meta.tasks.data._bytes import Bytes, BytesConfig, FRACTIONS, MOST_BYTES
from mnemo_compile.meta.tasks.data._source import Source, SourceConfig


def test_the_target_is_the_next_byte() -> None:
    batch = Bytes(BytesConfig(places=12)).batch((), jax.random.key(1), "train", 64)
    np.testing.assert_array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert batch.inputs.shape == (64, 12) and 0 <= int(batch.inputs.min()) <= int(batch.inputs.max()) < 256


@pytest.mark.parametrize("packages", [False, True])
def test_splits_have_their_fractions_and_no_text_in_common(packages: bool) -> None:
    texts = {split: np.asarray(text) for split, text in Bytes(BytesConfig(packages=packages)).text.items()}
    total = sum(map(len, texts.values()))
    assert 2**20 < total <= MOST_BYTES
    for split, fraction in FRACTIONS.items():
        assert len(texts[split]) == pytest.approx(fraction * total, abs=2)
    size = 400
    for one, two in itertools.permutations(SPLITS, 2):
        some = [texts[one][place : place + size].tobytes() for place in range(0, len(texts[one]) - size, 997 * size)]
        whole = texts[two].tobytes()
        # Modules have some text in common, such as a licence.
        assert sum(excerpt in whole for excerpt in some[:50]) <= 3, (one, two)


def test_the_text_is_not_that_of_source() -> None:
    mine = np.asarray(Bytes(BytesConfig()).text["train"]).tobytes()
    theirs = np.asarray(Source(SourceConfig()).text["train"])
    text = np.where(theirs == 0, ord("\n"), theirs + 31).astype(np.uint8)
    excerpts = [text[place : place + 400].tobytes() for place in range(0, len(text) - 400, 40_000)]
    assert sum(excerpt in mine for excerpt in excerpts) <= 1
