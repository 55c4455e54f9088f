"""The inner loop: what is drawn once per task, and how a training goes on."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.meta.inner_loop import Augmentation
from tests.meta.inner_loop.loops import FAMILIES, loop_of, PLAIN, weights_of
from tests.meta.tasks.families import family_of

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=SLOW if 1 <= place <= 3 else ()) for place, f in enumerate(FAMILIES)],
    ids=lambda f: family_of(f).name,
)
def test_reparametrisation_changes_what_the_optimizer_sees_and_not_the_network(family: dict[str, Any]) -> None:
    tasks = []
    for scales in ({}, dict.fromkeys(("scale", "tensor_scale", "coordinate_scale"), 1e3)):
        loop = loop_of(family, PLAIN._replace(**scales))
        tasks.append(jax.jit(lambda w, k, loop=loop: loop.draw(w, k))(weights_of(loop), jax.random.key(3)))
        np.testing.assert_allclose(
            jnp.concatenate([w.ravel() for w in loop.network(tasks[-1])]),
            jnp.concatenate([w.ravel() for w in loop.network(tasks[0])]),
            rtol=1e-5,
            atol=1e-7,
        )
    assert float(tasks[0].initial_loss) == pytest.approx(float(tasks[1].initial_loss), rel=1e-4)
    assert np.all(np.asarray(tasks[0].scales) == 1) and np.ptp(np.log(np.asarray(tasks[1].scales))) > 5


@pytest.mark.parametrize("family", [FAMILIES[0], FAMILIES[4]], ids=lambda f: family_of(f).name)
def test_tasks_train(family: dict[str, Any]) -> None:
    loop = loop_of({**family, "batch": 32} if "batch" in family else family)
    weights = weights_of(loop)
    _, losses = jax.jit(lambda key: loop.advance(weights, loop.draw(weights, key), 200))(jax.random.key(0))
    assert bool(jnp.all(jnp.isfinite(losses))) and float(losses[-20:, 0].mean()) < 0.9 * float(losses[:5, 0].mean())


def test_a_training_is_the_same_however_it_is_cut_into_truncations() -> None:
    loop = loop_of(FAMILIES[0], PLAIN._replace(gradient_noise=0.5, loss_scale=10.0))
    weights = weights_of(loop)
    start = eqx.filter_jit(loop.draw)(weights, jax.random.key(1))
    advance = eqx.filter_jit(loop.advance)
    whole, losses = advance(weights, start, 6)
    half, first = advance(weights, start, 2)
    parts, second = advance(weights, half, 4)
    np.testing.assert_allclose(losses, jnp.concatenate([first, second]), rtol=1e-5)
    np.testing.assert_allclose(whole.param, parts.param, rtol=1e-4, atol=1e-6)


def test_frozen_tensors_stay_and_the_others_move() -> None:
    loop = loop_of(FAMILIES[0], PLAIN._replace(frozen=1.0, gradient_noise=1.0))
    weights = weights_of(loop)
    kinds = set()
    draw, advance = eqx.filter_jit(loop.draw), eqx.filter_jit(loop.advance)
    for seed in range(6):
        start = draw(weights, jax.random.key(seed))
        after, _ = advance(weights, start, 3)
        for old, new, gain in zip(loop.network(start), loop.network(after), start.gradient_scale, strict=True):
            assert bool(jnp.all(old == new)) == (float(gain) == 0.0)
            kinds.add(float(gain) == 0.0)
    assert kinds == {True, False}


def test_a_restart_keeps_the_parameters_and_begins_another_task() -> None:
    loop = loop_of(FAMILIES[0], Augmentation(40, 40, restart=1.0), truncation=4)
    weights = weights_of(loop)
    run = jax.jit(lambda weights, task: loop.unroll(weights, task))
    task = eqx.filter_jit(loop.draw)(weights, jax.random.key(2))
    at = int(task.restart)
    assert 0 < at < 40 and at % 4 == 0 and float(task.total_steps) == at
    first = task
    while int(task.step) < at:
        task, _ = run(weights, task)
    assert int(task.optimizer.step) == at and bool(jnp.all(task.instance[0] == first.instance[0]))
    following, _ = run(weights, task)
    assert int(following.optimizer.step) == 4 and int(following.step) == at + 4
    assert float(following.total_steps) == 40 - at
    assert bool(jnp.any(following.instance[0] != first.instance[0]))
    assert float(jnp.abs(following.param - task.param).max()) < 1, "the parameters are those of before, steps on"
