"""A warm start: a run that begins with the weights of a meta-trained cell."""

import json
import pathlib

import equinox as eqx
import numpy as np
import pytest

from mnemo_compile.cell import cell_config, cell_weights
from mnemo_compile.errors import UsageError
from mnemo_compile.frozen import freeze, FrozenCell
from mnemo_compile.meta import load_config, meta_train, Start
from mnemo_compile.meta._meta_step import MetaStep
from mnemo_compile.meta._start import first_cell, starting_from
from tests.helpers import learned


def frozen_of(rate: float, beta1: float = 0.9, seed: int = 5) -> FrozenCell:
    """A cell whose rate differs from that of its configuration."""
    cell = cell_config({"kind": "adam", "beta1": beta1, "seed": seed}).build()
    return freeze(eqx.tree_at(lambda c: c.learning_rate, cell, np.float32(rate)), name="before", version="0.0.0")


def refused(adam: pathlib.Path, start: Start | None, *overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        starting_from(load_config(str(adam), overrides), start)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_is_refused_with_what_differs(adam: pathlib.Path) -> None:
    start = Start("runs/before", frozen_of(0.25, beta1=0.8))
    assert "runs/before is a cell with beta1 = 0.8 and this run's has 0.9" in refused(adam, start)
    other = Start("mine", freeze(cell_config({"kind": "lstm"}).build(), name="mine", version="0.0.0"))
    assert "mine is a cell with kind = 'lstm' and this run's has 'adam'" in refused(adam, other)
    start, digest = Start("runs/before", frozen_of(0.25)), frozen_of(0.5).digest
    assert "name it with --from" in refused(adam, None, f"start={digest}")
    assert f"starts from the cell {digest[:12]}" in refused(adam, start, f"start={digest}")
    with pytest.raises(UsageError, match="start"):
        load_config(str(adam), ("start=runs/before",))


def test_a_cell_with_another_prior_and_state_dtype_fits(config: pathlib.Path) -> None:
    before = freeze(load_config(str(config)).cell.build(), name="b", version="0.0.0")
    others = ("cell.state_dtype=bfloat16", "cell.seed=9", "cell.sample_chunks=2", "cell.prior.nesterov=0.0")
    coarse = load_config(str(config), others)
    warm = starting_from(coarse, Start("b", before))
    assert warm.start == before.digest and warm.cell == coarse.cell != before.config
    with pytest.raises(UsageError, match="second_moments"):
        starting_from(load_config(str(config), ("cell.second_moments=none",)), Start("b", before))


def test_the_configuration_names_the_cell(adam: pathlib.Path) -> None:
    fresh, start = load_config(str(adam)), Start("runs/before", frozen_of(0.25))
    warm = starting_from(fresh, start)
    assert warm.start == start.frozen.digest and warm.fingerprint != fresh.fingerprint
    assert warm == starting_from(load_config(str(adam), (f"start={start.frozen.digest}",)), start)
    assert starting_from(fresh, None) is fresh


def test_every_weight_is_that_of_the_cell(adam: pathlib.Path, config: pathlib.Path) -> None:
    before = learned(load_config(str(config)).cell.build(), seed=3)
    loaded = load_config(str(config), seed=8)
    after = cell_weights(first_cell(loaded, Start("b", freeze(before, name="b", version="0.0.0"))))
    for name, weight in cell_weights(before).items():
        np.testing.assert_array_equal(after[name], weight)

    start = Start("a", frozen_of(0.25))
    run = starting_from(load_config(str(adam)), start)
    state = MetaStep(run, first_cell(run, start)).init()
    for weights in (state.weights, state.average, state.best):
        assert float(weights.learning_rate) == 0.25


def test_a_run_goes_on_from_another_and_says_so(adam: pathlib.Path, tmp_path: pathlib.Path) -> None:
    start = Start("runs/before", frozen_of(0.25))
    frozen = meta_train(str(adam), tmp_path / "warm", steps=2, start=start)
    # The meta-learning rate is 0.001.
    assert abs(float(frozen.weights["learning_rate"]) - 0.25) < 0.0021
    assert frozen.manifest.training.command.endswith(" --from runs/before")
    assert json.loads((tmp_path / "warm/config.json").read_text())["start"] == start.frozen.digest
    with pytest.raises(UsageError, match="another configuration"):
        meta_train(str(adam), tmp_path / "warm", steps=3, resume=True)
    resumed = meta_train(str(adam), tmp_path / "warm", steps=3, start=start, resume=True)
    whole = meta_train(str(adam), tmp_path / "whole", steps=3, start=start)
    assert resumed.digest == whole.digest
