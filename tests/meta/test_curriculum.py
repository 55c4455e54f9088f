"""A curriculum limits what is drawn by the meta-step alone."""

import pathlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.errors import UsageError
from mnemo_compile.meta import load_config
from mnemo_compile.meta._config import CurriculumConfig, RunConfig
from mnemo_compile.meta._meta_step import MetaStep
from mnemo_compile.meta._state import TrainerState
from mnemo_compile.meta.estimators import draw
from mnemo_compile.meta.inner_loop import InnerLoop

SHORT, LONG, METASTEPS = 4, 64, 4
CURRICULUM = f"""
families = [{{kind = "quadratic", dimension = 2}}, {{kind = "quadratic", dimension = 3}}]
validation = {{tasks = 1, steps = 4, families = [{{kind = "quadratic", dimension = 4}}]}}
minutes = 1
cell = {{kind = "adam"}}
inner = {{tasks = 2, truncation = 2, shortest = {SHORT}, longest = {LONG}}}
curriculum = {{meta_steps = {METASTEPS}, longest = {SHORT}, families = 1}}
"""


def config_of(tmp_path: pathlib.Path, *overrides: str) -> RunConfig:
    path = tmp_path / "curriculum.toml"
    path.write_text(CURRICULUM)
    return load_config(str(path), overrides)


def test_the_way_is_geometric_in_the_horizon_and_even_in_the_families() -> None:
    curriculum = CurriculumConfig(meta_steps=10, longest=10, families=2)
    longest: list[Any] = [curriculum.longest_at(jnp.array(step), 1000) for step in range(13)]
    np.testing.assert_allclose(longest, [10 * 100 ** (min(step, 10) / 10) for step in range(13)], rtol=1e-5)
    assert [curriculum.families_at(step, 7) for step in range(13)] == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7]
    free = CurriculumConfig(meta_steps=10)
    assert free.longest_at(jnp.array(0), 1000) is None and free.families_at(0, 7) == 7


def test_horizons_respect_the_limit_of_the_meta_step(tmp_path: pathlib.Path) -> None:
    loaded = config_of(tmp_path, "inner.unknown_horizon=0.0")
    cell, inner, curriculum = loaded.cell.build(), loaded.inner, loaded.curriculum
    loop = InnerLoop(loaded.families[0].build(), cell, inner.augmentation, inner.truncation)
    weights = eqx.filter(cell, eqx.is_array)
    assert curriculum is not None

    @jax.jit
    def horizons(meta_step: jax.Array) -> jax.Array:
        longest = curriculum.longest_at(meta_step, LONG)
        assert longest is not None
        return draw(loop.with_longest(longest), weights, jax.random.key(0), 256).horizon

    for meta_step in (0, 1, 2, METASTEPS, 10 * METASTEPS):
        drawn, limit = np.asarray(horizons(jnp.array(meta_step))), SHORT * 16 ** min(meta_step / METASTEPS, 1)
        assert drawn.min() >= SHORT and 0.8 * limit < drawn.max() <= limit * (1 + 1e-5)
    plain = np.asarray(jax.jit(lambda key: draw(loop, weights, key, 256).horizon)(jax.random.key(0)))
    np.testing.assert_allclose(plain, drawn, atol=loop.truncation)


def run_for(machine: MetaStep, state: TrainerState, meta_steps: int) -> tuple[TrainerState, list[int]]:
    families = []
    for _ in range(meta_steps):
        state, objectives, _ = machine.step(state)
        families.append(len(objectives))
    return state, families


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["truncated", "persistent"])
def test_families_join_horizons_grow_and_a_run_goes_on_from_any_meta_step(tmp_path: pathlib.Path, kind: str) -> None:
    loaded = config_of(tmp_path, f"estimator.kind={kind}")
    machine = MetaStep(loaded)
    start = machine.init()
    whole, families = run_for(machine, start, 3 * METASTEPS)
    assert families == [1] * METASTEPS + [2] * (2 * METASTEPS)

    early, _ = run_for(machine, start, METASTEPS)
    # A family that does not take part keeps its tasks as they are, and the first is at its shortest horizons.
    assert eqx.tree_equal(early.carries[1], start.carries[1])
    assert not eqx.tree_equal(early.carries[0], start.carries[0])
    tasks = start.carries[0] if kind == "truncated" else start.carries[0].plus
    assert np.asarray(tasks.horizon).max() == SHORT

    # What a checkpoint holds, taken up by programs that know nothing of the meta-steps before.
    other = MetaStep(loaded)
    saved = jax.tree.map(np.asarray, early)
    resumed, _ = run_for(other, other.placed(saved), 2 * METASTEPS)
    assert eqx.tree_equal(resumed, whole)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("curriculum.longest=2", "curriculum.longest = 2 must be between inner.shortest = 4 and inner.longest = 64"),
        ("curriculum.longest=100", "curriculum.longest = 100 must be between"),
        ("curriculum.families=3", "curriculum.families = 3 must not exceed the 2 there are"),
        ("curriculum.meta_steps=0", "curriculum.meta_steps"),
    ],
)
def test_a_curriculum_that_does_not_fit_is_refused(tmp_path: pathlib.Path, override: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        config_of(tmp_path, override)
    assert named in str(caught.value) and "\n" not in str(caught.value)
