"""Imitation: of a tuned AdamW, whose rate a cell that is Adam itself finds again."""

import dataclasses
import functools
import pathlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pydantic
import pytest

from mnemo_compile.cell import AbstractCell, cell_config
from mnemo_compile.meta import load_config
from mnemo_compile.meta._meta_step import MetaStep
from mnemo_compile.meta.estimators import draw, Imitation
from mnemo_compile.meta.estimators._imitation import RATES
from mnemo_compile.meta.inner_loop import AbstractInnerLoop, Augmentation, ImitationLoop, ImitationState, InnerLoop
from mnemo_compile.meta.inner_loop._imitation import FLOOR, WEIGHT_DECAY
from mnemo_compile.meta.tasks import FamilyConfig
from tests.helpers import learned_cell

RATE, STEPS, HORIZON = 0.01, 6, 12
QUADRATIC = {"kind": "quadratic", "dimension": 5, "rotated": False}
CLASSES = {"network": {"kind": "mlp", "widths": [3]}, "data": {"kind": "digits"}, "batch": 8}
ADAM = """
minutes = 1
cell = {kind = "adam", learning_rate = 0.2}
estimator = {kind = "imitation"}
inner = {tasks = 2, truncation = 2, shortest = 4, longest = 8, unknown_horizon = 1.0}
outer = {learning_rate = 1e-4}
families = [{kind = "quadratic", dimension = 5, rotated = false}]
validation = {tasks = 1, steps = 4, families = [{kind = "quadratic", dimension = 3, rotated = false}]}
"""
UNKNOWN = Augmentation(HORIZON, HORIZON, unknown_horizon=1.0)
KNOWN = Augmentation(HORIZON, HORIZON)


def adam(rate: float = RATE) -> AbstractCell:
    return cell_config({"kind": "adam", "learning_rate": rate}).build()


def loop_of(
    family: dict[str, Any], augmentation: Augmentation, cell: AbstractCell, leads: float = 0.5, steps: int = STEPS
) -> ImitationLoop:
    built = pydantic.TypeAdapter(FamilyConfig).validate_python(family).build()
    return ImitationLoop(InnerLoop(built, cell, augmentation, steps), leads)


def weights_of(loop: ImitationLoop) -> Any:
    return eqx.filter(loop.loop.cell, eqx.is_array)


def state_of(loop: ImitationLoop, seed: int = 0, rate: float = RATE) -> ImitationState:
    drawn = jax.jit(lambda key: loop.draw(weights_of(loop), key))(jax.random.key(seed))
    return dataclasses.replace(drawn, rate=jnp.array(rate))


@functools.cache
def of_adams_rate(leads: float) -> Any:
    """The distance of Adam from the teacher, and its derivative, for the logarithm of how much faster Adam is."""
    loop = loop_of(CLASSES, UNKNOWN, adam(), leads)
    weights, state = weights_of(loop), state_of(loop)

    def distance(faster: jax.Array) -> jax.Array:
        return loop.unroll(eqx.tree_at(lambda w: w.learning_rate, weights, RATE * jnp.exp(faster)), state)[1]

    return jax.jit(jax.value_and_grad(distance))


@pytest.mark.parametrize("leads", [0.0, 1.0])
def test_adam_is_as_far_from_its_teacher_as_the_two_rates_are(leads: float) -> None:
    for faster in (-1.0, 0.0, 0.5):
        # Whoever leads, both see the same gradients: a = e^faster times the teacher's step is (a − 1)² away from it.
        a = np.exp(faster)
        value, slope = of_adams_rate(leads)(jnp.array(faster))
        assert float(value) == pytest.approx((a - 1) ** 2, rel=0.01, abs=1e-4)
        assert float(slope) == pytest.approx(2 * a * (a - 1), rel=0.01, abs=2e-3)


@pytest.mark.parametrize("augmentation", [KNOWN, UNKNOWN], ids=["known", "unknown"])
def test_the_teacher_is_adamw_with_a_cosine_where_the_horizon_is_known(augmentation: Augmentation) -> None:
    loop = loop_of(QUADRATIC, augmentation, adam(), leads=1.0, steps=HORIZON)
    state = state_of(loop)
    following, _ = jax.jit(lambda w, state: loop.unroll(w, state))(weights_of(loop), state)

    is_known = augmentation is KNOWN
    rate = optax.cosine_decay_schedule(RATE, HORIZON) if is_known else RATE
    optimizer = optax.adamw(rate, weight_decay=WEIGHT_DECAY)
    family, task = loop.loop.family, state.inner
    params: Any = loop.loop.network(task)
    state = optimizer.init(params)
    for number in range(HORIZON):
        key = jax.random.fold_in(jax.random.wrap_key_data(task.key), number)
        grads = jax.grad(family.loss)(params, family.batch(task.instance, key, "train"))
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(loop.loop.network(following.inner)[0], params[0], rtol=1e-4, atol=1e-6)


def test_who_leads_moves_the_parameters_and_both_keep_their_state() -> None:
    ends = []
    for leads in (0.0, 1.0):
        loop = loop_of(CLASSES, KNOWN, adam(), leads)
        weights, state = weights_of(loop), state_of(loop, rate=0.1)
        assert bool(state.teacher_leads) == bool(leads)
        following, _ = jax.jit(lambda w, state: loop.unroll(w, state))(weights, state)
        assert int(following.teacher.count) == int(following.inner.optimizer.step) == int(following.inner.step) == STEPS
        ends.append(following.inner)
    by_cell, by_teacher = ends
    alone, _ = jax.jit(lambda w, task: loop.loop.advance(w, task, STEPS))(weights, state.inner)
    np.testing.assert_allclose(by_cell.param, alone.param, rtol=1e-4, atol=1e-6)
    assert float(jnp.abs(by_teacher.param - by_cell.param).max()) > 0.01


def test_a_reparametrisation_does_not_change_what_the_teacher_does() -> None:
    ends = []
    for scale in (1.0, 50.0):
        loop = loop_of(CLASSES, KNOWN._replace(tensor_scale=scale), adam(), leads=1.0)
        run = jax.jit(lambda w, state, loop=loop: loop.unroll(w, state))
        following, _ = run(weights_of(loop), state_of(loop))
        ends.append(jnp.concatenate([w.ravel() for w in loop.loop.network(following.inner)]))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_frozen_tensors_and_the_end_of_the_cosine_leave_distances_finite() -> None:
    loop = loop_of(CLASSES, KNOWN._replace(frozen=1.0, restart=0.5), learned_cell(), steps=HORIZON // 2)
    weights, estimator = weights_of(loop), Imitation(tasks=4)
    states = jax.jit(lambda key: draw(loop, weights, key, 4))(jax.random.key(0))
    assert not bool(jnp.all(states.inner.gain != 0)), "some tensors are frozen"
    carry = dataclasses.replace(states, rate=jnp.full(4, RATE))
    step = jax.jit(lambda carry: estimator.step(loop, weights, carry, jax.random.key(1)))
    for _ in range(2):
        estimate, carry = step(carry)
        assert 0 < float(estimate.objective) < 1e3 / FLOOR**2 and int(estimate.diverged) == 0
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(estimate.gradient))
        np.testing.assert_array_equal(carry.teacher.count, carry.inner.optimizer.step)


@pytest.mark.slow
def test_the_rate_is_tuned_once_for_the_family_and_is_a_good_one() -> None:
    loop = loop_of(QUADRATIC, KNOWN, adam(), steps=HORIZON)
    estimator, weights = Imitation(tasks=2, truncations=1), weights_of(loop)
    begin = jax.jit(lambda key: estimator.init(loop, weights, key))
    carry = begin(jax.random.key(0))
    rate = float(carry.rate[0])
    assert np.all(np.asarray(carry.rate) == np.float32(rate)) and np.any(np.isclose(rate, RATES))
    assert eqx.tree_equal(carry, begin(jax.random.key(0)))

    def trained(rate: jax.Array, key: jax.Array) -> jax.Array:
        state = dataclasses.replace(loop.draw(weights, key), rate=rate, teacher_alone=True)
        return loop.unroll(weights, state)[1]

    keys = jax.random.split(jax.random.key(7), 8)
    others = jax.jit(lambda rates: jax.vmap(lambda r: jax.vmap(lambda k: trained(r, k))(keys).mean())(rates))
    losses = np.asarray(others(jnp.asarray(RATES)))
    chosen = losses[int(np.argmin(np.abs(np.log(np.asarray(RATES) / rate))))]
    assert np.sum(losses < chosen) < 3, "on tasks that it never saw it is among the best"


class Kinked(AbstractInnerLoop):
    """(θ − 1)² and the root of a weight that is zero: the value is there and one of its derivatives is not."""

    def draw(self, weights: Any, key: Any) -> Any:
        return Held(jnp.full((), jnp.nan))

    def unroll(self, weights: Any, state: Any) -> Any:
        return state, (weights["rate"] - 1) ** 2 + jnp.sqrt(0 * weights["idle"])

    def ended(self, state: Any) -> Any:
        return jnp.array(True), jnp.array(False)


class Held(eqx.Module):
    rate: jax.Array


def test_a_derivative_that_is_not_there_spares_the_others_and_a_value_that_is_not_does_not() -> None:
    estimator, carry = Imitation(tasks=3), Held(jnp.full(3, RATE))
    for rate, expected in ((1.5, (1.0, 0.0)), (np.nan, (np.nan, np.nan))):
        weights = {"rate": jnp.array(rate), "idle": jnp.zeros(())}
        estimate, following = estimator.step(Kinked(), weights, carry, jax.random.key(0))
        np.testing.assert_array_equal([estimate.gradient[name] for name in ("rate", "idle")], expected)
        np.testing.assert_array_equal(following.rate, carry.rate)


def distances_of(machine: MetaStep, meta_steps: int) -> tuple[list[float], Any]:
    state, distances = machine.init(), []
    for _ in range(meta_steps):
        state, (distance,), norm = machine.step(state)
        distances.append(float(distance))
        assert 0 < float(norm) < np.inf
    assert int(state.skipped) == 0
    return distances, state


@pytest.mark.parametrize("faster", [2.0, pytest.param(0.3, marks=pytest.mark.slow)])
def test_descent_finds_the_teachers_rate(faster: float) -> None:
    step, begin = of_a_family()
    carry = begin(jax.random.key(0))
    teacher = float(carry.rate[0])
    rate, distances = faster * teacher, []
    for number in range(20):
        estimate, carry = step(jnp.array(rate), carry, jax.random.key(number))
        distances.append(float(estimate.objective))
        # 2 a (a − 1) is the slope in the logarithm of the rate.
        rate *= float(np.exp(-0.3 * rate * estimate.gradient.learning_rate))
    assert distances[0] == pytest.approx((faster - 1) ** 2, rel=0.01)
    assert distances[-1] < 1e-3 and rate == pytest.approx(teacher, rel=0.03)
    np.testing.assert_array_equal(carry.rate, np.float32(teacher))


@functools.cache
def of_a_family() -> tuple[Any, Any]:
    """A meta-step of imitation by Adam at a rate, and what is carry at first."""
    loop = loop_of(QUADRATIC, UNKNOWN, adam())
    estimator, weights = Imitation(tasks=2, truncations=2), weights_of(loop)

    def step(rate: jax.Array, carry: Any, key: jax.Array) -> Any:
        return estimator.step(loop, eqx.tree_at(lambda w: w.learning_rate, weights, rate), carry, key)

    return jax.jit(step), jax.jit(lambda key: estimator.init(loop, weights, key))


@pytest.mark.slow
def test_a_run_imitates(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "adam.toml"
    path.write_text(ADAM)
    machine = MetaStep(load_config(str(path)))
    _, state = distances_of(machine, 6)
    start = machine.init()
    # Every task was drawn afresh since the rate was tuned.
    np.testing.assert_array_equal(state.carries[0].rate, start.carries[0].rate)
    assert not eqx.tree_equal(state.weights, start.weights)


@pytest.mark.slow
def test_meta_steps_bring_mnemosyne_closer_to_its_teacher(config: pathlib.Path) -> None:
    plain = ("inner.scale=1.0", "inner.tensor_scale=1.0", "inner.unknown_horizon=0.0")
    inner = ("inner.inners=8", "inner.shortest=8", "inner.longest=80", *plain)
    overrides = ("estimator.kind=imitation", "outer.learning_rate=0.03", *inner)
    distances, _ = distances_of(MetaStep(load_config(str(config), overrides)), 80)
    assert np.mean(distances[-20:]) < 0.7 * np.mean(distances[:20])
