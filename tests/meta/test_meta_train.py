"""What a run leaves behind, and that what it does is what it says."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pydantic
import pytest

from mnemo_compile.frozen import load_bundle
from mnemo_compile.cell import cell_weights
from mnemo_compile.errors import MnemoError, UsageError
from mnemo_compile.meta import _meta_step, load_config, meta_train
from mnemo_compile.meta._config import OuterConfig
from mnemo_compile.meta._meta_step import MetaStep
from mnemo_compile.meta._monitor import read_metrics
from mnemo_compile.meta._trainer import _names
from mnemo_compile.meta._unroll import Augmentation, meta_objective, Problem
from mnemo_compile.meta.tasks import FamilyConfig
from tests.helpers import learned_cell

DIGITS = {"kind": "digits"}
FAMILIES = [
    {"network": {"kind": "mlp", "widths": [3, 2], "activation": "tanh"}, "data": DIGITS, "batch": 8},
    {"network": {"kind": "conv", "channels": [2, 3]}, "data": DIGITS, "batch": 8},
    {"network": {"kind": "vit", "width": 4, "depth": 2}, "data": DIGITS, "batch": 8},
    {"network": {"kind": "transformer", "width": 4}, "data": {"kind": "markov", "symbols": 5}, "batch": 8},
    {"kind": "quadratic", "dimension": 5},
]
PLAIN = Augmentation(200, 200)


def problem_of(family: dict[str, Any], augmentation: Augmentation = PLAIN, truncation: int = 4) -> Problem:
    built = pydantic.TypeAdapter(FamilyConfig).validate_python(family).build()
    return Problem(built, learned_cell(), augmentation, truncation)


def weights_of(problem: Problem) -> Any:
    return eqx.filter(problem.cell, eqx.is_array)


def test_a_run_leaves_bundle_metrics_events_and_curve(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "run"
    frozen = meta_train(str(config), out, steps=6, seed=4)
    bundle = load_bundle(out / "bundle")
    assert bundle.digest == frozen.digest and bundle.manifest.training.meta_steps == 6
    assert "--steps 6 --seed 4" in bundle.manifest.training.command
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["meta_step"] for r in records if "objective" in r] == [1, 2, 3, 4, 5, 6]
    assert [r["meta_step"] for r in records if "validation" in r] == [0, 5, 6]
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert any(p.stat().st_size for p in (out / "events").iterdir())
    # Told to end earlier than it did, it still says what it was.
    again = meta_train(str(config), out, steps=2, seed=4, resume=True)
    assert again.digest == frozen.digest and "--steps 6 --seed 4" in again.manifest.training.command


@pytest.mark.slow
def test_minutes_and_steps_reach_the_same_weights(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    timed = meta_train(str(config), tmp_path / "timed", minutes=0.01)
    steps = timed.manifest.training.meta_steps
    counted = meta_train(str(config), tmp_path / "counted", steps=steps)
    assert steps > 0 and counted.digest == timed.digest


@pytest.mark.slow
def test_seeds_differ_and_one_seed_repeats(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    digests = [meta_train(str(config), tmp_path / str(i), steps=3, seed=s).digest for i, s in enumerate((1, 1, 2))]
    assert digests[0] == digests[1] != digests[2]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=SLOW if 1 <= place <= 3 else ()) for place, f in enumerate(FAMILIES)],
    ids=lambda f: problem_of(f).family.name,
)
def test_reparametrisation_changes_what_the_optimizer_sees_and_not_the_network(family: dict[str, Any]) -> None:
    tasks = []
    for scales in ({}, dict.fromkeys(("scale", "tensor_scale", "coordinate_scale"), 1e3)):
        problem = problem_of(family, PLAIN._replace(**scales))
        tasks.append(jax.jit(lambda w, k, p=problem: p.draw(w, k))(weights_of(problem), jax.random.key(3)))
        np.testing.assert_allclose(
            jnp.concatenate([w.ravel() for w in problem.network(tasks[-1])]),
            jnp.concatenate([w.ravel() for w in problem.network(tasks[0])]),
            rtol=1e-5,
            atol=1e-7,
        )
    assert float(tasks[0].initial_loss) == pytest.approx(float(tasks[1].initial_loss), rel=1e-4)
    assert np.all(np.asarray(tasks[0].scales) == 1) and np.ptp(np.log(np.asarray(tasks[1].scales))) > 5


@pytest.mark.parametrize("family", [FAMILIES[0], FAMILIES[4]], ids=lambda f: problem_of(f).family.name)
def test_tasks_train(family: dict[str, Any]) -> None:
    problem = problem_of({**family, "batch": 32} if "batch" in family else family)
    weights = weights_of(problem)
    _, losses = jax.jit(lambda key: problem.advance(weights, problem.draw(weights, key), 200))(jax.random.key(0))
    assert bool(jnp.all(jnp.isfinite(losses))) and float(losses[-20:, 0].mean()) < 0.9 * float(losses[:5, 0].mean())


def test_a_task_is_the_same_however_it_is_cut_into_truncations() -> None:
    problem = problem_of(FAMILIES[0], PLAIN._replace(gradient_noise=0.5, loss_scale=10.0))
    weights = weights_of(problem)
    start = problem.draw(weights, jax.random.key(1))
    whole, losses = problem.advance(weights, start, 6)
    half, first = problem.advance(weights, start, 2)
    parts, second = problem.advance(weights, half, 4)
    np.testing.assert_allclose(losses, jnp.concatenate([first, second]), rtol=1e-5)
    np.testing.assert_allclose(whole.param, parts.param, rtol=1e-4, atol=1e-6)


def test_frozen_tensors_stay_and_the_others_move() -> None:
    problem = problem_of(FAMILIES[0], PLAIN._replace(frozen=1.0, gradient_noise=1.0))
    weights = weights_of(problem)
    kinds = set()
    for seed in range(6):
        start = problem.draw(weights, jax.random.key(seed))
        after, _ = jax.jit(lambda task: problem.advance(weights, task, 3))(start)
        for old, new, gain in zip(problem.network(start), problem.network(after), start.gain, strict=True):
            assert bool(jnp.all(old == new)) == (float(gain) == 0.0)
            kinds.add(float(gain) == 0.0)
    assert kinds == {True, False}


def test_a_restart_keeps_the_parameters_and_begins_another_task() -> None:
    problem = problem_of(FAMILIES[0], Augmentation(40, 40, restart=1.0), truncation=4)
    weights = weights_of(problem)
    run = jax.jit(lambda weights, task: problem.run(weights, task))
    task = problem.draw(weights, jax.random.key(2))
    at = int(task.restart)
    assert 0 < at < 40 and at % 4 == 0 and float(task.told) == at
    first = task
    while int(task.taken) < at:
        task, _ = run(weights, task)
    assert int(task.optimizer.step) == at and bool(jnp.all(task.instance[0] == first.instance[0]))
    following, _ = run(weights, task)
    assert int(following.optimizer.step) == 4 and int(following.taken) == at + 4
    assert float(following.told) == 40 - at
    assert bool(jnp.any(following.instance[0] != first.instance[0]))
    assert float(jnp.abs(following.param - task.param).max()) < 1, "the parameters are those of before, steps on"


def test_a_diverged_task_counts_as_the_worst_that_counts_and_is_drawn_afresh(config: pathlib.Path) -> None:
    objective = meta_objective(jnp.array([[jnp.nan, 1e9]]), jnp.array(2.0))
    assert float(objective) == pytest.approx(np.log(10.001))
    machine = MetaStep(load_config(str(config)))
    state = machine.init()
    broken = state.carried[0]._replace(param=state.carried[0].param.at[0].set(jnp.nan))
    state, *_ = machine.step(state._replace(carried=(broken,)))
    assert int(state.resets) == 1
    tasks = state.carried[0]
    assert bool(jnp.all(jnp.isfinite(tasks.param)))
    assert int(tasks.optimizer.step[0]) == 0 and int(tasks.optimizer.step[1]) == 2


def test_a_meta_gradient_that_is_not_finite_moves_nothing_and_is_counted(config: pathlib.Path) -> None:
    machine = MetaStep(load_config(str(config)))
    state = machine.init()
    estimate, _ = machine._estimates[0](state.weights, state.carried[0], state.meta_step)
    poisoned = estimate._replace(gradient=jax.tree.map(lambda g: g * jnp.nan, estimate.gradient))
    after, _ = machine._apply(state, [poisoned])
    assert int(after.skipped) == int(after.skipped_in_a_row) == 1
    assert eqx.tree_equal(after.weights, state.weights) and eqx.tree_equal(after.optimizer, state.optimizer)
    healthy, _ = machine._apply(after, [estimate])
    assert int(healthy.skipped) == 1 and int(healthy.skipped_in_a_row) == 0


def test_ten_meta_gradients_in_a_row_that_are_not_finite_stop_the_run_with_a_reason(
    config: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MetaStep.__init__

    def poisoned(machine: MetaStep, *arguments: Any) -> None:
        made(machine, *arguments)
        (estimate,) = machine._estimates

        def poison(weights: Any, carried: Any, meta_step: Any) -> Any:
            result, carried = estimate(weights, carried, meta_step)
            # Nine in a row, which it survives, and from the fourteenth on all.
            is_lost = 2 <= int(meta_step) < 11 or int(meta_step) >= 13
            factor = jnp.nan if is_lost else 1.0
            return result._replace(gradient=jax.tree.map(lambda g: factor * g, result.gradient)), carried

        machine._estimates = [poison]

    monkeypatch.setattr(MetaStep, "__init__", poisoned)
    out = tmp_path / "run"
    with pytest.raises(MnemoError, match="not finite 10 times in a row, up to meta-step 23; lower") as caught:
        meta_train(str(config), out, steps=40)
    assert "\n" not in str(caught.value) and not (out / "bundle").exists()
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["skipped"] for r in records if "objective" in r][-1] == 19


def estimates_of(config: pathlib.Path, *overrides: str) -> tuple[MetaStep, Any, Any]:
    machine = MetaStep(load_config(str(config), overrides))
    state = machine.init()
    return machine, state, machine._estimates[0](state.weights, state.carried[0], state.meta_step)[0]


def test_a_meta_gradient_is_clipped_to_a_norm(config: pathlib.Path) -> None:
    machine, state, estimate = estimates_of(config, "outer.clip=0.25")
    norm = float(optax.tree.norm(estimate.gradient))
    for size in (1e-3, 1e3):
        scaled = estimate._replace(gradient=jax.tree.map(lambda g, s=size: s * g / norm, estimate.gradient))
        moved, told = machine._apply(state, [scaled])
        # Adam keeps a tenth of the first gradient it sees; the norm that is shown is of before.
        assert float(optax.tree.norm(moved.optimizer[1][0].mu)) == pytest.approx(0.1 * min(size, 0.25), rel=1e-3)
        assert float(told) == pytest.approx(size, rel=1e-3)


def test_what_is_kept_is_the_mean_of_the_weights_and_later_a_discounted_one(config: pathlib.Path) -> None:
    keep = 0.8
    machine, state, estimate = estimates_of(config, f"outer.average={keep}", "outer.learning_rate=0.1")
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


def test_families_that_differ_in_what_their_names_leave_out_are_told_apart() -> None:
    clusters = [
        {"network": {"kind": "mlp", "widths": [3]}, "data": {"kind": "clusters", "spread": s}} for s in (0.5, 1)
    ]
    problems = [problem_of(family) for family in (clusters[0], FAMILIES[4], clusters[1])]
    names = _names(problems)
    assert names == ("mlp-3-relu clusters-16 #1", problems[1].family.name, "mlp-3-relu clusters-16 #2")


def test_the_weights_that_are_kept_have_the_lowest_score_that_was_recorded(
    config: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    overrides = ("outer.validate_every=1", "outer.learning_rate=0.3")
    frozen = meta_train(str(config), tmp_path / "run", steps=6, overrides=overrides)
    records = [r for r in read_metrics(tmp_path / "run/metrics.jsonl") if "validation" in r]
    scores = []
    for record in records:
        parts = zip(*(record[name].values() for name in ("validation", "validation_final", "validation_held_out")))
        scores.append(np.mean([objective + np.log(final * held) / 2 for objective, final, held in parts]))
    np.testing.assert_allclose([record["validation_score"] for record in records], scores, rtol=1e-5)
    best = records[int(np.argmin(scores))]
    figures = frozen.manifest.training.figures
    (name,) = best["validation_final"]
    assert figures[f"{name}, 4 steps: final training loss"] == pytest.approx(best["validation_final"][name], rel=1e-5)


@pytest.mark.slow
def test_a_second_start_compiles_nothing_again(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment["MNEMO_CACHE"] = str(tmp_path / "cache")
    kept = []
    for run in ("first", "second"):
        command = [sys.executable, "-m", "mnemo_compile", "meta-train", str(config), "--out", str(tmp_path / run)]
        subprocess.run([*command, "--steps", "1"], check=True, capture_output=True, env=environment)
        kept.append({p.name for p in (tmp_path / "cache/programs").iterdir() if p.name.endswith("-cache")})
    assert kept[0] and kept[0] == kept[1]


@hypothesis.given(half_life=st.integers(1, 9))
@hypothesis.settings(max_examples=3, deadline=None)
def test_the_rate_of_the_meta_optimizer_halves(half_life: int) -> None:
    optimizer = OuterConfig(learning_rate=0.1, half_life=half_life).optimizer
    gradient, state = jnp.ones(1), optimizer.init(jnp.ones(1))
    for step in range(20):
        # Adam's step for a gradient that stays is its rate.
        update, state = optimizer.update(gradient, state)
        np.testing.assert_allclose(np.asarray(update), -0.1 * 0.5 ** (step / half_life), rtol=1e-3)


@pytest.mark.parametrize("equal", [False, True])
def test_families_count_alike_however_large_their_meta_gradients(config: pathlib.Path, equal: bool) -> None:
    machine = MetaStep(load_config(str(config), (f"outer.equal_families={str(equal).lower()}", "outer.clip=1e9")))
    state = machine.init()
    one, _ = machine._estimates[0](state.weights, state.carried[0], state.meta_step)
    other = one._replace(gradient=jax.tree.map(lambda g: jnp.flip(g) + 0.1 * jnp.linalg.norm(g), one.gradient))
    larger = other._replace(gradient=jax.tree.map(lambda g: 1000 * g, other.gradient))
    moved = [machine._apply(state, [one, each])[0].optimizer[1][0].mu for each in (other, larger)]
    difference = optax.tree.norm(jax.tree.map(jnp.subtract, *moved))
    assert (float(difference) < 1e-5 * float(optax.tree.norm(moved[0]))) == equal
    if equal:
        # Two directions of length one: their mean is no longer, and Adam keeps a tenth of it.
        assert float(optax.tree.norm(moved[0])) <= 0.1 + 1e-6


def test_where_the_system_has_no_memory_maps_left_that_is_said(
    config: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tmp_path / "few"
    few.write_text("100")
    monkeypatch.setattr(_meta_step, "MOST_MAPS", few)
    monkeypatch.setattr(_meta_step, "MAPS", config)
    MetaStep(load_config(str(config)))
    maps = tmp_path / "maps"
    maps.write_text("one\n" * 91)
    monkeypatch.setattr(_meta_step, "MAPS", maps)
    with pytest.raises(MnemoError, match="91 of the 100 memory maps .* sysctl") as caught:
        MetaStep(load_config(str(config)))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(_meta_step, "MAPS", tmp_path / "not there")
    MetaStep(load_config(str(config)))


@pytest.mark.parametrize("kind", [pytest.param("truncated", marks=SLOW), "persistent"])
def test_only_what_is_named_is_meta_trained(config: pathlib.Path, tmp_path: pathlib.Path, kind: str) -> None:
    overrides = (f"estimator.kind={kind}", 'outer.trains=["context_out", "second_rate"]')
    before = cell_weights(load_config(str(config), overrides).cell.build())
    after = meta_train(str(config), tmp_path / kind, steps=5, overrides=overrides).weights
    moved = {name for name, weight in before.items() if not np.array_equal(weight, after[name])}
    assert "context_out" in moved and moved <= {"context_out", "second_rate"}


def test_a_weight_that_is_not_there_is_refused_with_those_that_are(config: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="no weights 'contxt'; it has .*context_out") as caught:
        load_config(str(config), ('outer.trains=["contxt"]',))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["persistent", pytest.param("evolution", marks=SLOW)])
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
