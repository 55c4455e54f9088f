"""What a run leaves behind."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.cell import cell_weights
from mnemo_compile.errors import MnemoError
from mnemo_compile.frozen import load_bundle
from mnemo_compile.meta import load_config, meta_train
from mnemo_compile.meta._meta_step import MetaStep
from mnemo_compile.meta.monitor import read_metrics

SLOW = pytest.mark.slow


def test_a_run_leaves_bundle_metrics_events_and_curve(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "run"
    frozen = meta_train(str(config), out, steps=6, seed=4)
    bundle = load_bundle(out / "bundle")
    assert bundle.digest == frozen.digest and bundle.manifest.training.meta_steps == 6
    assert "--steps 6 --seed 4" in bundle.manifest.training.command
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["meta_step"] for r in records if "objective" in r] == [1, 2, 3, 4, 5, 6]
    assert [r["meta_step"] for r in records if "validation_score" in r] == [0, 5, 6]
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert any(p.stat().st_size for p in (out / "events").iterdir())
    # Resumed with fewer steps than it had, its command still names its own.
    again = meta_train(str(config), out, steps=2, seed=4, resume=True)
    assert again.digest == frozen.digest and "--steps 6 --seed 4" in again.manifest.training.command


@SLOW
def test_minutes_and_steps_reach_the_same_weights(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    timed = meta_train(str(config), tmp_path / "timed", minutes=0.01)
    steps = timed.manifest.training.meta_steps
    counted = meta_train(str(config), tmp_path / "counted", steps=steps)
    assert steps > 0 and counted.digest == timed.digest


@SLOW
def test_seeds_differ_and_one_seed_repeats(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    digests = [meta_train(str(config), tmp_path / str(i), steps=3, seed=s).digest for i, s in enumerate((1, 1, 2))]
    assert digests[0] == digests[1] != digests[2]


def test_ten_meta_gradients_in_a_row_that_are_not_finite_stop_the_run_with_a_reason(
    adam: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
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
        meta_train(str(adam), out, steps=40)
    assert "\n" not in str(caught.value) and not (out / "bundle").exists()
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["skipped"] for r in records if "objective" in r][-1] == 19


def test_the_frozen_weights_have_the_lowest_recorded_score(adam: pathlib.Path, tmp_path: pathlib.Path) -> None:
    overrides = ("outer.validate_every=1", "outer.learning_rate=0.3")
    frozen = meta_train(str(adam), tmp_path / "run", steps=6, overrides=overrides)
    records = [r for r in read_metrics(tmp_path / "run/metrics.jsonl") if "validation_score" in r]
    scores = []
    for record in records:
        parts = zip(
            *(record[name].values() for name in ("validation_objective", "validation_training_loss", "validation_loss"))
        )
        scores.append(np.mean([objective + np.log(final * held) / 2 for objective, final, held in parts]))
    np.testing.assert_allclose([record["validation_score"] for record in records], scores, rtol=1e-5)
    best = records[int(np.argmin(scores))]
    figures = frozen.manifest.training.figures
    (name,) = best["validation_training_loss"]
    assert figures[f"{name}, 4 steps: training loss"] == pytest.approx(best["validation_training_loss"][name], rel=1e-5)


@SLOW
@pytest.mark.parametrize("kind", ["truncated", "persistent"])
def test_only_named_weights_are_meta_trained(config: pathlib.Path, tmp_path: pathlib.Path, kind: str) -> None:
    overrides = (f"estimator.kind={kind}", 'outer.trains=["network.context.output", "direction.second_moment"]')
    before = cell_weights(load_config(str(config), overrides).cell.build())
    after = meta_train(str(config), tmp_path / kind, steps=5, overrides=overrides).weights
    moved = {name for name, weight in before.items() if not np.array_equal(weight, after[name])}
    output, rate = "network.context.output", "direction.second_moment.log_rate"
    assert output in moved and moved <= {output, rate}
