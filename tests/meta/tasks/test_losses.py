"""Each loss against its formula, in NumPy."""

from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.meta.tasks._losses import LOSSES
from tests.meta.tasks.families import supervised

FORMULAS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "squared": lambda out, target: float(np.mean((out - target) ** 2) / 2),
    "absolute": lambda out, target: float(np.mean(np.abs(out - target))),
    "huber": lambda out, target: float(
        np.mean([d * d / 2 if d < 1 else d - 0.5 for d in np.abs(out - target).ravel()])
    ),
    "cross-entropy": lambda out, label: float(np.mean(-np.log(likelihoods(out, label)))),
    "focal": lambda out, label: float(np.mean(-((1 - likelihoods(out, label)) ** 2) * np.log(likelihoods(out, label)))),
    "hinge": lambda out, label: float(
        np.mean([max(0.0, 1 + np.delete(row, y).max() - row[y]) for row, y in zip(out, label, strict=True)])
    ),
}


def likelihoods(scores: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Probabilities of the labels, where classes have these scores."""
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (odds / odds.sum(axis=1, keepdims=True))[np.arange(len(label)), label]


@hypothesis.given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0.1, 1.0, 10.0]))
@hypothesis.settings(max_examples=15, deadline=None)
@pytest.mark.parametrize(("kind", "loss"), [(kind, loss) for kind, losses in LOSSES.items() for loss in losses])
def test_a_loss_is_its_formula(kind: str, loss: str, seed: int, size: float) -> None:
    family = supervised({"kind": "diabetes" if kind == "numbers" else "wine"}, loss=loss)
    random = np.random.default_rng(seed)
    params = [jnp.asarray(size * random.normal(size=tensor.shape), jnp.float32) for tensor in family.tensors]
    batch = family.batch(family.draw(jax.random.key(seed)), jax.random.key(1), "train")
    outputs = family.network(params, batch.inputs)
    expected = FORMULAS[loss](np.asarray(outputs, np.float64), np.asarray(batch.targets))
    np.testing.assert_allclose(family.loss(params, batch), expected, rtol=1e-3, atol=1e-6)
