"""Bounds of the likelihood, and noise at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta.tasks.families import DIGITS, family_of, start


def test_more_samples_give_a_tighter_bound() -> None:
    losses = []
    for samples in (1, 4, 16):
        family = family_of({"kind": "variational", "data": DIGITS, "width": 16, "latent": 4, "samples": samples})
        params = [3 * p for p in start(family, jax.random.key(0))]
        keys = jax.random.split(jax.random.key(1), 16)
        batches = [family.batch(family.draw(keys[0]), key, "train") for key in keys]
        losses.append(np.mean([family.loss(params, batch) for batch in batches]))
    assert losses[0] > losses[1] > losses[2]


def test_the_bound_is_error_and_divergence() -> None:
    family = family_of({"kind": "variational", "data": DIGITS, "width": 16, "latent": 4, "batch": 4000})
    params = [0.0 * p for p in start(family, jax.random.key(0))]
    # A posterior of deviation e^½ and mean 2, and a decoder that gives zeros.
    params[3], params[5] = params[3] + 2.0, params[5] + 1.0
    batch = family.batch(family.draw(jax.random.key(1)), jax.random.key(2), "train")
    divergence = 0.5 * 4 * (np.e + 4 - 1 - 1)
    expected = (0.5 * np.sum(np.square(batch.inputs), axis=1).mean() + divergence) / 64
    np.testing.assert_allclose(family.loss(params, batch), expected, rtol=0.01)


@pytest.mark.parametrize("predicts", ["noise", "velocity"])
def test_what_is_predicted_leads_back_to_an_example(predicts: str) -> None:
    family = family_of({"kind": "diffusion", "data": DIGITS, "predicts": predicts, "widths": [8], "batch": 32})
    instance = family.draw(jax.random.key(0))
    batch = family.batch(instance, jax.random.key(1), "train")
    noisy, sine, cosine = np.split(np.asarray(batch.inputs), [64, 72], axis=1)
    target = np.asarray(batch.targets)
    angle = np.arctan2(sine[:, :1], cosine[:, :1])
    if predicts == "noise":
        clean = (noisy - np.sin(angle) * target) / np.cos(angle)
    else:
        clean = noisy - angle / (0.5 * np.pi) * target
    # Each is a digit of the training split.
    digits = np.asarray(family.data.rows["train"][0]).reshape(-1, 64)  # type: ignore[attr-defined]
    is_early = angle[:, 0] < 1.4
    distance = np.abs(clean[is_early, None] - digits).max(axis=2).min(axis=1)
    assert is_early.sum() > 20 and distance.max() < 1e-2


def test_views_of_an_image_are_nearer_than_those_of_another() -> None:
    family = family_of(
        {"kind": "contrastive", "network": {"kind": "mlp", "widths": []}, "data": DIGITS, "dimension": 64}
    )
    batch = family.batch(family.draw(jax.random.key(0)), jax.random.key(1), "train")
    # The projection is the image itself.
    params = [jnp.eye(64), jnp.zeros(64)]
    others = batch._replace(targets=jnp.roll(batch.targets, 1, axis=0))
    assert float(family.loss(params, batch)) < min(float(family.loss(params, others)), np.log(127))
    assert float(family.accuracy(params, batch._replace(targets=batch.inputs))) == 1
    # All alike: the other view is one of those that are not the view itself.
    np.testing.assert_allclose(family.loss([jnp.zeros((64, 64)), jnp.ones(64)], batch), np.log(127), rtol=1e-4)
