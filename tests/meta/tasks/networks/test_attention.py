"""A stack of blocks is the same whether each is compiled by itself or one for all."""

from typing import Any

import jax
import numpy as np
import pytest

from mnemo_compile.meta.tasks.networks import _attention
from tests.meta.tasks.families import start, supervised


@pytest.mark.parametrize("causal", [False, True])
def test_a_loop_over_blocks_changes_nothing(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    text: dict[str, Any] = {"kind": "markov", "symbols": 12, "places": 6, **({} if causal else {"masked": 0.3})}
    network = {"kind": "transformer", "width": 8, "depth": 3, "causal": causal}
    family = supervised(text, network, batch=4)
    params = start(family, jax.random.key(0))
    batch = family.batch(family.draw(jax.random.key(1)), jax.random.key(2), "train")
    monkeypatch.setattr(_attention, "LOOPED", 4)
    each = jax.value_and_grad(family.loss)(params, batch)
    monkeypatch.setattr(_attention, "LOOPED", 3)
    loop = jax.value_and_grad(family.loss)(params, batch)
    for one, other in zip(jax.tree.leaves(each), jax.tree.leaves(loop), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
