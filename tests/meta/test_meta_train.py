"""What a run leaves behind, and that what it does is what it says."""

import json
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.artifact import load_bundle
from mnemo_compile.meta import build_family, load_config, meta_train
from mnemo_compile.meta._data import digits
from mnemo_compile.meta._families import ConvConfig, MLPConfig, ViTConfig
from mnemo_compile.meta._meta_step import MetaStep
from mnemo_compile.meta._unroll import Augmentation, meta_objective, Problem
from tests.helpers import learned_cell

FAMILIES = [
    MLPConfig(family="mlp", widths=(3, 2), activation="tanh"),
    ConvConfig(family="conv", channels=(2, 3)),
    ViTConfig(family="vit", width=4, depth=2, heads=2),
]


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


def test_minutes_and_steps_reach_the_same_weights(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    timed = meta_train(str(config), tmp_path / "timed", minutes=0.01)
    steps = timed.manifest.training.meta_steps
    counted = meta_train(str(config), tmp_path / "counted", steps=steps)
    assert steps > 0 and counted.digest == timed.digest


def test_seeds_differ_and_one_seed_repeats(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    digests = [meta_train(str(config), tmp_path / str(i), steps=3, seed=s).digest for i, s in enumerate((1, 1, 2))]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.family)
def test_reparametrisation_changes_what_the_optimizer_sees_and_not_the_network(family) -> None:
    cell = learned_cell()
    images, labels = (jnp.asarray(x[:8]) for x in digits()["train"])
    losses = []
    for scale in (1.0, 7.0):
        problem = Problem(build_family(family), cell, Augmentation(scale, 1.0, 0.0, 4, 4), 8)
        task = problem.draw(jax.random.key(3), cell, (images, labels), 4)
        losses.append(float(task.initial_loss))
    assert not np.allclose(task.scales, 1.0)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.family)
def test_families_train(family) -> None:
    cell = learned_cell()
    images, labels = digits()["train"]
    data = jnp.asarray(images), jnp.asarray(labels)
    problem = Problem(build_family(family), cell, Augmentation(1.0, 1.0, 0.0, 200, 200), 32)

    @jax.jit
    def run(key):
        return problem.train(cell, problem.draw(key, cell, data, 200), data, data, 200)[1]

    losses = run(jax.random.key(0))
    assert bool(jnp.all(jnp.isfinite(losses))) and float(losses[-20:, 0].mean()) < 0.9 * float(losses[:5, 0].mean())


def test_no_image_is_in_two_parts() -> None:
    images = np.concatenate([part for part, _ in digits().values()])
    assert len(images) == len(np.unique(images, axis=0)) == 1797


def test_a_diverged_task_counts_as_the_worst_that_counts_and_is_drawn_afresh(config: pathlib.Path) -> None:
    objective = meta_objective(jnp.array([[[jnp.nan, 1e9]]]), jnp.array([2.0]))
    assert float(objective) == pytest.approx(np.log(20.001))
    machine = MetaStep(load_config(str(config)))
    state = machine.init()
    broken = state.tasks[0]._replace(param=state.tasks[0].param.at[0].set(jnp.nan))
    state, *_ = machine.step(state._replace(tasks=(broken,)))
    assert int(state.resets) == 1
    assert bool(jnp.all(jnp.isfinite(state.tasks[0].param)))
    assert int(state.tasks[0].optimizer.step[0]) == 0 and int(state.tasks[0].optimizer.step[1]) == 2


def test_a_meta_gradient_that_is_not_finite_moves_nothing_and_is_counted(config: pathlib.Path) -> None:
    machine = MetaStep(load_config(str(config)))
    state = machine.init()
    unrolled = machine._unrolls[0](state.weights, state.tasks[0], state.tasks[0])
    poisoned = unrolled._replace(gradient=jax.tree.map(lambda g: g * jnp.nan, unrolled.gradient))
    after, _ = machine._apply(state, [poisoned])
    assert int(after.skipped) == int(after.skipped_in_a_row) == 1
    assert eqx.tree_equal(after.weights, state.weights) and eqx.tree_equal(after.optimizer, state.optimizer)
    healthy, _ = machine._apply(after, [unrolled])
    assert int(healthy.skipped) == 1 and int(healthy.skipped_in_a_row) == 0
