"""Words by their neighbours, entries of a matrix, and nodes of a graph."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.meta.tasks import SPLITS
from tests.meta.tasks.families import family_of, start


def test_a_context_is_near_its_word_and_random_words_are_as_frequent_as_the_table() -> None:
    family = family_of({"kind": "skip-gram", "data": {"kind": "source"}, "words": 32, "width": 4, "batch": 4096})
    batch = family.batch((), jax.random.key(0), "train")
    text = np.asarray(family.text["train"])  # type: ignore[attr-defined]
    assert not np.array_equal(text[:1000], family.text["validation"][:1000])  # type: ignore[attr-defined]
    pairs = {(int(a), int(b)) for away in range(1, 6) for a, b in zip(text[:-away], text[away:], strict=True)}
    near = zip(np.asarray(batch.inputs), np.asarray(batch.targets)[:, 0], strict=True)
    assert all((int(a), int(b)) in pairs or (int(b), int(a)) in pairs for a, b in near)
    counts = np.bincount(text, minlength=32) ** 0.75
    drawn = np.bincount(np.asarray(batch.targets)[:, 1:].ravel(), minlength=32)
    np.testing.assert_allclose(drawn / drawn.sum(), counts / counts.sum(), atol=0.01)


@pytest.mark.parametrize("biases", [True, False])
def test_the_true_factors_leave_no_error_and_splits_share_no_entry(biases: bool) -> None:
    sizes = {"rows": 12, "columns": 10, "rank": 3, "inner": 6, "factors": 2, "noise": 0, "biases": biases}
    family = family_of({"kind": "factorisation", **sizes, "fraction": 0.4})
    instance = family.draw(jax.random.key(0))
    matrix = np.asarray(instance[0])
    # The numbers of rows and columns add two to the rank at most, and those of the task one.
    row, column = (np.random.default_rng(size).normal(size=size) * biases for size in (12, 10))
    left, size, right = np.linalg.svd(matrix - row[:, None] - column, full_matrices=False)
    params = [jnp.asarray(left[:, :6] * size[:6]), jnp.asarray(right[:6].T)]
    if biases:
        params += [jnp.asarray(row), jnp.asarray(column)]
    entries = {}
    for split in SPLITS:
        batch = family.batch(instance, jax.random.key(1), split)
        assert float(family.loss(params, batch)) < 1e-6
        entries[split] = set(np.asarray(batch.inputs).tolist())
    assert not any(entries[a] & entries[b] for a in SPLITS for b in SPLITS if a != b)


def test_nodes_of_a_split_count_and_those_of_others_do_not() -> None:
    family = family_of({"kind": "graph", "nodes": 64, "width": 8})
    instance = family.draw(jax.random.key(0))
    weights = {}
    for split in SPLITS:
        drawn = [family.batch(instance, key, split).weight for key in jax.random.split(jax.random.key(1), 16)]
        weights[split] = np.max(np.asarray(drawn), axis=0)
    np.testing.assert_array_equal(sum(weights.values()), 1)
    assert weights["train"].sum() == 32
    batch = family.batch(instance, jax.random.key(2), "train")
    assert batch.weight is not None
    params, flipped = start(family, jax.random.key(3)), (batch.targets + 1) % 4
    others = batch._replace(targets=jnp.where(batch.weight > 0, batch.targets, flipped))
    assert float(family.loss(params, batch)) == float(family.loss(params, others))
