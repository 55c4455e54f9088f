"""One meta-step, and what moves the weights."""

import copy
import pathlib
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnemo_compile.errors import UsageError
from mnemo_compile.meta import load_config
from mnemo_compile.meta._meta_step import MetaStep
from mnemo_compile.meta.inner_loop import meta_objective
from tests.meta.conftest import CONFIG

SLOW = pytest.mark.slow


class Start(NamedTuple):
    """A meta-step, the state before the first one, and the estimate of its first gradient."""

    machine: MetaStep
    state: Any
    estimate: Any

    def beside(self, config: pathlib.Path, *overrides: str) -> "Start":
        """The same start for a meta-step with other settings of the outer loop."""
        machine = copy.copy(self.machine)
        machine.config = load_config(str(config), overrides)
        machine._optimizer = machine.config.outer.optimizer
        machine._apply = jax.jit(machine._move)
        return self._replace(machine=machine)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """What is compiled once for all tests, as settings of the outer loop change no estimate."""
    path = tmp_path_factory.mktemp("plain") / "small.toml"
    path.write_text(CONFIG)
    machine = MetaStep(load_config(str(path)))
    state = machine.init()
    return Start(machine, state, machine._estimates[0](state.weights, state.carries[0], state.meta_step)[0])


def test_a_diverged_task_counts_as_the_worst_that_counts_and_is_drawn_afresh(plain: Start) -> None:
    objective = meta_objective(jnp.array([[jnp.nan, 1e9]]), jnp.array(2.0))
    assert float(objective) == pytest.approx(np.log(10.001))
    carried = plain.state.carries[0]
    broken = carried._replace(param=carried.param.at[0].set(jnp.nan))
    state, *_ = plain.machine.step(plain.state._replace(carries=(broken,)))
    assert int(state.resets) == 1
    tasks = state.carries[0]
    assert bool(jnp.all(jnp.isfinite(tasks.param)))
    assert int(tasks.optimizer.step[0]) == 0 and int(tasks.optimizer.step[1]) == 2


def test_a_meta_gradient_that_is_not_finite_moves_nothing_and_is_counted(plain: Start) -> None:
    machine, state, estimate = plain
    poisoned = estimate._replace(gradient=jax.tree.map(lambda g: g * jnp.nan, estimate.gradient))
    after, _ = machine._apply(state, [poisoned])
    assert int(after.skipped) == int(after.skipped_in_a_row) == 1
    assert eqx.tree_equal(after.weights, state.weights) and eqx.tree_equal(after.optimizer, state.optimizer)
    healthy, _ = machine._apply(after, [estimate])
    assert int(healthy.skipped) == 1 and int(healthy.skipped_in_a_row) == 0


def test_a_meta_gradient_is_clipped_to_a_norm(config: pathlib.Path, plain: Start) -> None:
    machine, state, estimate = plain.beside(config, "outer.clip=0.25")
    norm = float(optax.tree.norm(estimate.gradient))
    for size in (1e-3, 1e3):
        scaled = estimate._replace(gradient=jax.tree.map(lambda g, s=size: s * g / norm, estimate.gradient))
        moved, norm_before = machine._apply(state, [scaled])
        # Adam keeps a tenth of the first gradient it sees; the norm that is shown is of before.
        assert float(optax.tree.norm(moved.optimizer[1][0].mu)) == pytest.approx(0.1 * min(size, 0.25), rel=1e-3)
        assert float(norm_before) == pytest.approx(size, rel=1e-3)


def test_the_average_is_the_mean_of_the_weights_and_later_a_discounted_one(config: pathlib.Path, plain: Start) -> None:
    keep = 0.8
    machine, state, estimate = plain.beside(config, f"outer.average={keep}", "outer.learning_rate=0.1")
    seen, expected = [state.weights], state.weights
    for number in range(12):
        turned = jax.tree.map(lambda g, n=number: g if n % 3 else -2 * g, estimate.gradient)
        state, _ = machine._apply(state, [estimate._replace(gradient=turned)])
        seen.append(state.weights)
        if (number + 1) / (number + 2) <= keep:
            expected = jax.tree.map(lambda *weights: sum(weights) / len(weights), *seen)
        else:
            expected = jax.tree.map(lambda a, w: keep * a + (1 - keep) * w, expected, state.weights)
        for one, other in zip(jax.tree.leaves(state.average), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert not eqx.tree_equal(state.average, state.weights)


@pytest.mark.parametrize("equal", [pytest.param(False, marks=SLOW), True])
def test_families_count_alike_however_large_their_meta_gradients(
    config: pathlib.Path, plain: Start, equal: bool
) -> None:
    machine, state, one = plain.beside(config, f"outer.equal_families={str(equal).lower()}", "outer.clip=1e9")
    other = one._replace(gradient=jax.tree.map(lambda g: jnp.flip(g) + 0.1 * jnp.linalg.norm(g), one.gradient))
    larger = other._replace(gradient=jax.tree.map(lambda g: 1000 * g, other.gradient))
    moved = [machine._apply(state, [one, each])[0].optimizer[1][0].mu for each in (other, larger)]
    difference = optax.tree.norm(jax.tree.map(jnp.subtract, *moved))
    assert (float(difference) < 1e-5 * float(optax.tree.norm(moved[0]))) == equal
    if equal:
        # Two directions of length one: their mean is no longer, and Adam keeps a tenth of it.
        assert float(optax.tree.norm(moved[0])) <= 0.1 + 1e-6


@SLOW
@pytest.mark.parametrize("kind", ["persistent", "evolution"])
def test_other_estimators_run_from_the_configuration(config: pathlib.Path, kind: str) -> None:
    overrides = (f"estimator.kind={kind}", "estimator.truncations=2", "inner.restart=0.5", "inner.frozen=0.5")
    machine = MetaStep(load_config(str(config), overrides))
    start = state = machine.init()
    for _ in range(4):
        state, objectives, norm = machine.step(state)
        assert np.isfinite(objectives[0]) and 0 < float(norm) < np.inf
    assert int(state.skipped) == 0 and not eqx.tree_equal(start.weights, state.weights)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(state.weights))
    with pytest.raises(UsageError, match="inner.tasks = 3 must be even"):
        load_config(str(config), (*overrides, "inner.tasks=3"))
