"""Training a task with any optimizer."""

import jax
import numpy as np

from mnemo_compile.meta.evaluation import TaskConfig
from mnemo_compile.meta.evaluation._baselines import BASELINES, Setting
from mnemo_compile.meta.evaluation._training import BINS, starts, train


def settings_of(*rates: float) -> Setting:
    return Setting(np.array(rates, np.float32), np.zeros(len(rates), np.float32))


def test_a_run_depends_on_its_setting_and_seed_and_not_on_its_neighbours(line: TaskConfig) -> None:
    adamw = BASELINES["adamw"].of(())
    together = train(line, adamw, settings_of(0.01, 0.01, 0.1), [0, 1, 1])
    alone = train(line, adamw, settings_of(0.01), [1])
    assert together.curves.shape == (3, BINS)
    np.testing.assert_allclose(together.curves[1], alone.curves[0], rtol=1e-4)
    assert not np.allclose(together.curves[0], together.curves[1], rtol=1e-2)
    assert not np.allclose(together.curves[1], together.curves[2], rtol=1e-2)


def test_a_fine_tuning_starts_from_what_was_learned_before(again: TaskConfig) -> None:
    assert again.before is not None
    fresh, _ = starts(again.model_copy(update={"before": None}), [0, 1])
    learned, _ = starts(again, [0, 1])
    assert all(not np.allclose(a, b) for a, b in zip(fresh, learned, strict=True))
    # Its loss on the first task is lower than at a fresh start.
    family = again.before.family.build()
    instance = family.draw(jax.random.fold_in(jax.random.key(0), 3))
    batch = family.batch(instance, jax.random.key(9), "train")
    assert family.loss([p[0] for p in learned], batch) < 0.9 * family.loss([p[0] for p in fresh], batch)
