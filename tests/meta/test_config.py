"""The sections of a configuration."""

import pathlib

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.cell import cell_weights
from mnemo_compile.errors import UsageError
from mnemo_compile.meta import load_config
from mnemo_compile.meta._config import OuterConfig


@hypothesis.given(half_life=st.integers(1, 9))
@hypothesis.settings(max_examples=3, deadline=None)
def test_the_rate_of_the_meta_optimizer_halves(half_life: int) -> None:
    optimizer = OuterConfig(learning_rate=0.1, half_life=half_life).optimizer
    gradient, state = jnp.ones(1), optimizer.init(jnp.ones(1))
    for step in range(20):
        # Adam's step for a gradient that stays is its rate.
        update, state = optimizer.update(gradient, state)
        np.testing.assert_allclose(np.asarray(update), -0.1 * 0.5 ** (step / half_life), rtol=1e-3)


def test_an_unknown_weight_is_refused_with_the_names_of_the_others(config: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="no weights 'contxt'; it has .*network.context.output") as caught:
        load_config(str(config), ('outer.trains=["contxt"]',))
    assert "\n" not in str(caught.value)


def test_a_part_of_the_cell_is_named_for_all_of_its_weights(config: pathlib.Path) -> None:
    loaded = load_config(str(config), ('outer.trains=["network.context", "direction.second_moment.log_rate"]',))
    cell = loaded.cell.build()
    moved = cell_weights(eqx.filter(cell, loaded.outer.is_trained(cell)))
    context = {f"network.context.{name}" for name in ("input", "bias", "output")}
    assert set(moved) == {*context, "direction.second_moment.log_rate"}
