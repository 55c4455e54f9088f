"""A network on data: what fits together, and noise in the labels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pydantic
import pytest

from mnemo_compile.meta.tasks import SPLITS
from tests.meta.tasks.families import CLUSTERS, CONFIG, FAMILIES, start, supervised, TEACHER, TEXT


def test_label_noise_is_in_every_split_but_validation() -> None:
    noisy, clean = (supervised(CLUSTERS, label_noise=noise, batch=128) for noise in (0.5, 0.0))
    instance, key = noisy.draw(jax.random.key(0)), jax.random.key(1)
    pairs = {split: (noisy.batch(instance, key, split), clean.batch(instance, key, split)) for split in SPLITS}
    for split in ("train", "meta"):
        fraction = float(jnp.mean(pairs[split][0].targets != pairs[split][1].targets))
        assert 0.3 < fraction < 0.55
    np.testing.assert_array_equal(pairs["validation"][0].targets, pairs["validation"][1].targets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": TEXT}, "network 'mlp' cannot read data 'markov'"),
        ({"network": {"kind": "vit", "width": 8}, "data": TEACHER}, "needs images"),
        ({"network": {"kind": "vit", "width": 7}}, "heads = 2 must divide width = 7"),
        ({"loss": "squared"}, "loss = 'squared' does not fit targets that are classes"),
        ({"reconstructs": True, "loss": "focal"}, "loss = 'focal' does not fit targets that are numbers"),
        ({"network": {"kind": "conv", "channels": [4]}, "reconstructs": True}, "needs a network of numbers"),
        ({"batch": 0}, "greater than or equal to 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message.replace("(", r"\(")):
        CONFIG.validate_python({**FAMILIES[0], **changes})


def test_lower_precision_is_of_the_network_and_not_of_its_parameters() -> None:
    full, lower = (supervised(TEACHER, {"kind": "mlp", "widths": [32]}, activations=a) for a in ("float32", "bfloat16"))
    params = start(full, jax.random.key(0))
    batch = full.batch(full.draw(jax.random.key(1)), jax.random.key(2), "train")
    (exact, grads), (rounded, rough) = (jax.value_and_grad(family.loss)(params, batch) for family in (full, lower))
    assert rounded.dtype == jnp.float32 and rounded != exact
    np.testing.assert_allclose(rounded, exact, rtol=0.02)
    for one, other in zip(grads, rough, strict=True):
        assert other.dtype == jnp.float32
        np.testing.assert_allclose(one, other, atol=0.05 * float(jnp.abs(one).max()) + 1e-3)
