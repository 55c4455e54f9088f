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
from mnemo_compile.meta._estimators import AbstractUnroll, draw
from mnemo_compile.meta._imitation import FLOOR, Imitated, Imitation, Lesson, RATES, WEIGHT_DECAY
from mnemo_compile.meta._meta_step import MetaStep
from mnemo_compile.meta._unroll import Augmentation, Problem
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
UNTOLD = Augmentation(HORIZON, HORIZON, unknown_horizon=1.0)
TOLD = Augmentation(HORIZON, HORIZON)


def adam(rate: float = RATE) -> AbstractCell:
    return cell_config({"kind": "adam", "learning_rate": rate}).build()


def lessons_of(
    family: dict[str, Any], augmentation: Augmentation, cell: AbstractCell, leads: float = 0.5, steps: int = STEPS
) -> Imitated:
    built = pydantic.TypeAdapter(FamilyConfig).validate_python(family).build()
    return Imitated(Problem(built, cell, augmentation, steps), leads)


def weights_of(unroll: Imitated) -> Any:
    return eqx.filter(unroll.problem.cell, eqx.is_array)


def lesson_of(unroll: Imitated, seed: int = 0, rate: float = RATE) -> Lesson:
    drawn = jax.jit(lambda key: unroll.draw(weights_of(unroll), key))(jax.random.key(seed))
    return dataclasses.replace(drawn, rate=jnp.array(rate))


@functools.cache
def of_adams_rate(leads: float) -> Any:
    """The distance of Adam from the teacher, and its derivative, for the logarithm of how much faster Adam is."""
    unroll = lessons_of(CLASSES, UNTOLD, adam(), leads)
    weights, lesson = weights_of(unroll), lesson_of(unroll)

    def distance(faster: jax.Array) -> jax.Array:
        return unroll.run(eqx.tree_at(lambda w: w.learning_rate, weights, RATE * jnp.exp(faster)), lesson)[1]

    return jax.jit(jax.value_and_grad(distance))


@pytest.mark.parametrize("leads", [0.0, 1.0])
def test_adam_is_as_far_from_its_teacher_as_the_two_rates_are(leads: float) -> None:
    for faster in (-1.0, 0.0, 0.5):
        # Whoever leads, both see the same gradients: a = e^faster times the teacher's step is (a − 1)² away from it.
        a = np.exp(faster)
        value, slope = of_adams_rate(leads)(jnp.array(faster))
        assert float(value) == pytest.approx((a - 1) ** 2, rel=0.01, abs=1e-4)
        assert float(slope) == pytest.approx(2 * a * (a - 1), rel=0.01, abs=2e-3)


@pytest.mark.parametrize("augmentation", [TOLD, UNTOLD], ids=["told", "untold"])
def test_the_teacher_is_adamw_with_a_cosine_where_the_horizon_is_told(augmentation: Augmentation) -> None:
    unroll = lessons_of(QUADRATIC, augmentation, adam(), leads=1.0, steps=HORIZON)
    lesson = lesson_of(unroll)
    following, _ = jax.jit(lambda w, lesson: unroll.run(w, lesson))(weights_of(unroll), lesson)

    told = augmentation is TOLD
    rate = optax.cosine_decay_schedule(RATE, HORIZON) if told else RATE
    optimizer = optax.adamw(rate, weight_decay=WEIGHT_DECAY)
    family, task = unroll.problem.family, lesson.task
    params: Any = unroll.problem.network(task)
    state = optimizer.init(params)
    for number in range(HORIZON):
        key = jax.random.fold_in(jax.random.wrap_key_data(task.key), number)
        grads = jax.grad(family.loss)(params, family.batch(task.instance, key, "train"))
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(unroll.problem.network(following.task)[0], params[0], rtol=1e-4, atol=1e-6)


def test_who_leads_moves_the_parameters_and_both_keep_their_state() -> None:
    ends = []
    for leads in (0.0, 1.0):
        unroll = lessons_of(CLASSES, TOLD, adam(), leads)
        weights, lesson = weights_of(unroll), lesson_of(unroll, rate=0.1)
        assert bool(lesson.leads) == bool(leads)
        following, _ = jax.jit(lambda w, lesson: unroll.run(w, lesson))(weights, lesson)
        assert int(following.teacher.count) == int(following.task.optimizer.step) == int(following.task.taken) == STEPS
        ends.append(following.task)
    by_cell, by_teacher = ends
    alone, _ = jax.jit(lambda w, task: unroll.problem.advance(w, task, STEPS))(weights, lesson.task)
    np.testing.assert_allclose(by_cell.param, alone.param, rtol=1e-4, atol=1e-6)
    assert float(jnp.abs(by_teacher.param - by_cell.param).max()) > 0.01


def test_a_reparametrisation_does_not_change_what_the_teacher_does() -> None:
    ends = []
    for scale in (1.0, 50.0):
        unroll = lessons_of(CLASSES, TOLD._replace(tensor_scale=scale), adam(), leads=1.0)
        run = jax.jit(lambda w, lesson, unroll=unroll: unroll.run(w, lesson))
        following, _ = run(weights_of(unroll), lesson_of(unroll))
        ends.append(jnp.concatenate([w.ravel() for w in unroll.problem.network(following.task)]))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_frozen_tensors_and_the_end_of_the_cosine_leave_distances_finite() -> None:
    unroll = lessons_of(CLASSES, TOLD._replace(frozen=1.0, restart=0.5), learned_cell(), steps=HORIZON // 2)
    weights, estimator = weights_of(unroll), Imitation(tasks=4)
    lessons = jax.jit(lambda key: draw(unroll, weights, key, 4))(jax.random.key(0))
    assert not bool(jnp.all(lessons.task.gain != 0)), "some tensors are frozen"
    carried = dataclasses.replace(lessons, rate=jnp.full(4, RATE))
    step = jax.jit(lambda carried: estimator.step(unroll, weights, carried, jax.random.key(1)))
    for _ in range(2):
        estimate, carried = step(carried)
        assert 0 < float(estimate.objective) < 1e3 / FLOOR**2 and int(estimate.diverged) == 0
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(estimate.gradient))
        np.testing.assert_array_equal(carried.teacher.count, carried.task.optimizer.step)


def test_the_rate_is_tuned_once_for_the_family_and_is_a_good_one() -> None:
    unroll = lessons_of(QUADRATIC, TOLD, adam(), steps=HORIZON)
    estimator, weights = Imitation(tasks=2, truncations=1), weights_of(unroll)
    begin = jax.jit(lambda key: estimator.init(unroll, weights, key))
    carried = begin(jax.random.key(0))
    rate = float(carried.rate[0])
    assert np.all(np.asarray(carried.rate) == np.float32(rate)) and np.any(np.isclose(rate, RATES))
    assert eqx.tree_equal(carried, begin(jax.random.key(0)))

    def trained(rate: jax.Array, key: jax.Array) -> jax.Array:
        lesson = dataclasses.replace(unroll.draw(weights, key), rate=rate, alone=True)
        return unroll.run(weights, lesson)[1]

    keys = jax.random.split(jax.random.key(7), 8)
    others = jax.jit(lambda rates: jax.vmap(lambda r: jax.vmap(lambda k: trained(r, k))(keys).mean())(rates))
    losses = np.asarray(others(jnp.asarray(RATES)))
    chosen = losses[int(np.argmin(np.abs(np.log(np.asarray(RATES) / rate))))]
    assert np.sum(losses < chosen) < 3, "on tasks that it never saw it is among the best"


class Kinked(AbstractUnroll):
    """(θ − 1)² and the root of a weight that is zero: the value is there and one of its derivatives is not."""

    def draw(self, weights: Any, key: Any) -> Any:
        return Held(jnp.full((), jnp.nan))

    def run(self, weights: Any, inner: Any) -> Any:
        return inner, (weights["rate"] - 1) ** 2 + jnp.sqrt(0 * weights["idle"])

    def ended(self, inner: Any) -> Any:
        return jnp.array(True), jnp.array(False)


class Held(eqx.Module):
    rate: jax.Array


def test_a_derivative_that_is_not_there_spares_the_others_and_a_value_that_is_not_does_not() -> None:
    estimator, carried = Imitation(tasks=3), Held(jnp.full(3, RATE))
    for rate, expected in ((1.5, (1.0, 0.0)), (np.nan, (np.nan, np.nan))):
        weights = {"rate": jnp.array(rate), "idle": jnp.zeros(())}
        estimate, following = estimator.step(Kinked(), weights, carried, jax.random.key(0))
        np.testing.assert_array_equal([estimate.gradient[name] for name in ("rate", "idle")], expected)
        np.testing.assert_array_equal(following.rate, carried.rate)


def distances_of(machine: MetaStep, meta_steps: int) -> tuple[list[float], Any]:
    state, distances = machine.init(), []
    for _ in range(meta_steps):
        state, (distance,), norm = machine.step(state)
        distances.append(float(distance))
        assert 0 < float(norm) < np.inf
    assert int(state.skipped) == 0
    return distances, state


@pytest.mark.parametrize("faster", [0.3, 2.0])
def test_descent_finds_the_teachers_rate(faster: float) -> None:
    step, begin = of_a_family()
    carried = begin(jax.random.key(0))
    teacher = float(carried.rate[0])
    rate, distances = faster * teacher, []
    for number in range(20):
        estimate, carried = step(jnp.array(rate), carried, jax.random.key(number))
        distances.append(float(estimate.objective))
        # 2 a (a − 1) is the slope in the logarithm of the rate.
        rate *= float(np.exp(-0.3 * rate * estimate.gradient.learning_rate))
    assert distances[0] == pytest.approx((faster - 1) ** 2, rel=0.01)
    assert distances[-1] < 1e-3 and rate == pytest.approx(teacher, rel=0.03)
    np.testing.assert_array_equal(carried.rate, np.float32(teacher))


@functools.cache
def of_a_family() -> tuple[Any, Any]:
    """A meta-step of imitation by Adam at a rate, and what is carried at first."""
    unroll = lessons_of(QUADRATIC, UNTOLD, adam())
    estimator, weights = Imitation(tasks=2, truncations=2), weights_of(unroll)

    def step(rate: jax.Array, carried: Any, key: jax.Array) -> Any:
        return estimator.step(unroll, eqx.tree_at(lambda w: w.learning_rate, weights, rate), carried, key)

    return jax.jit(step), jax.jit(lambda key: estimator.init(unroll, weights, key))


def test_a_run_imitates(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "adam.toml"
    path.write_text(ADAM)
    machine = MetaStep(load_config(str(path)))
    _, state = distances_of(machine, 6)
    start = machine.init()
    # Every task was drawn afresh since the rate was tuned.
    np.testing.assert_array_equal(state.carried[0].rate, start.carried[0].rate)
    assert not eqx.tree_equal(state.weights, start.weights)


@pytest.mark.slow
def test_meta_steps_bring_mnemosyne_closer_to_its_teacher(config: pathlib.Path) -> None:
    plain = ("inner.scale=1.0", "inner.tensor_scale=1.0", "inner.unknown_horizon=0.0")
    inner = ("inner.tasks=8", "inner.shortest=8", "inner.longest=80", *plain)
    overrides = ("estimator.kind=imitation", "outer.learning_rate=0.03", *inner)
    distances, _ = distances_of(MetaStep(load_config(str(config), overrides)), 80)
    assert np.mean(distances[-20:]) < 0.7 * np.mean(distances[:20])
