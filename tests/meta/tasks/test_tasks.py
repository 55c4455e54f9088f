"""Families of tasks: each can be learned, and its tasks differ."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnemo_compile.meta.tasks import Params, Split, SPLITS
from tests.meta.tasks.families import FAMILIES, family_of, start

QUICK = (0, 5, 9, 14, 17, 19, 37, 40, 46, 49, 51, 53)
"""Some of every kind of network, data and loss."""


each_family = pytest.mark.parametrize(
    "config",
    [pytest.param(config, marks=() if place in QUICK else pytest.mark.slow) for place, config in enumerate(FAMILIES)],
    ids=lambda config: family_of(config).name,
)


@each_family
def test_a_family_can_be_learned_and_draws_the_same_for_the_same_key(config: dict[str, Any]) -> None:
    family = family_of(config)
    keys = jax.random.split(jax.random.key(3), 4)
    instance = family.draw(keys[0])
    batch_of = jax.jit(lambda instance, key, split: family.batch(instance, key, split), static_argnums=2)
    params = start(family, keys[1])
    optimizer = optax.adam(3e-2 if config.get("kind") == "quadratic" else 1e-2)

    @jax.jit
    def step(params: Params, state: Any, key: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(family.loss)(params, family.batch(instance, key, "train"))
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    mean_loss = jax.jit(lambda params, batch: family.loss(params, batch))

    def loss_of(params: Params, split: Split) -> float:
        draws = [batch_of(instance, key, split) for key in jax.random.split(keys[2], 8)]
        return float(np.mean([mean_loss(params, batch) for batch in draws]))

    before = {split: loss_of(params, split) for split in SPLITS}
    # A skip-gram starts with zeros for its contexts, so that all splits have the same loss.
    is_alike = family.name.startswith(("quadratic", "skip-gram"))
    assert len({round(loss, 6) for loss in before.values()}) > 1 or is_alike
    state = optimizer.init(params)
    for key in jax.random.split(keys[3], 150):
        params, state, loss = step(params, state, key)
        assert bool(jnp.isfinite(loss))
    assert loss_of(params, "meta") < 0.95 * before["meta"], "what is learned holds for examples outside of training"

    batch, again, other = (batch_of(instance, key, "train") for key in (keys[0], keys[0], keys[1]))
    for a, b, c in zip(*map(jax.tree.leaves, (batch, again, other)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape == c.shape
    pairs = zip(jax.tree.leaves(batch), jax.tree.leaves(other), strict=True)
    assert any(bool(jnp.any(a != c)) for a, c in pairs) != (config.get("noise") == 0)
    accuracy = float(family.accuracy(params, family.batch(instance, keys[0], "validation")))
    assert np.isnan(accuracy) or 0 <= accuracy <= 1


@each_family
def test_tasks_of_a_family_differ(config: dict[str, Any]) -> None:
    family, key = family_of(config), jax.random.key(0)
    draw = jax.jit(lambda k: family.batch(family.draw(k), key, "train"))
    one, *others = (jax.tree.leaves(draw(jax.random.key(seed))) for seed in range(3))
    pairs = [pair for other in others for pair in zip(one, other, strict=True)]
    # There is one table of numbers, one text, and one set of images without labels.
    tables = ("diabetes", "source", "prose", "bytes")
    is_one = config.get("data", {}).get("kind") in tables or config.get("reconstructs", False)
    is_one = is_one or config.get("kind") == "variational"
    assert is_one or any(bool(jnp.any(a != b)) for a, b in pairs)


def test_names_tell_families_apart() -> None:
    names = [family_of(config).name for config in FAMILIES]
    assert len(set(names)) == len(names)
