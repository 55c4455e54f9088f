"""A cell's arrays have names, and a cell takes arrays by name."""

import jax
import numpy as np
import pytest

from mnemo_compile.cell import cell_config, cell_weights, with_weights
from mnemo_compile.errors import MnemoError
from tests.conftest import SMALL

CELL = cell_config({"kind": "mnemosyne", "token": 4}).template()
RATE = "direction.second_moment.log_rate"


def test_names_are_the_paths_of_the_modules() -> None:
    names = set(cell_weights(CELL))
    assert {"network.encoder.query", "network.time.kernel.projection", "direction.memory.log_rate"} <= names
    assert len(names) == len([leaf for leaf in jax.tree.leaves(CELL) if hasattr(leaf, "shape")])


def test_what_goes_out_comes_back() -> None:
    weights = {name: value + 1 for name, value in cell_weights(CELL).items()}
    for name, value in cell_weights(with_weights(CELL, weights)).items():
        np.testing.assert_array_equal(value, weights[name])


def test_a_template_is_the_cell_without_its_weights() -> None:
    config = cell_config(SMALL)
    cell = config.build()
    same = with_weights(config.template(), cell_weights(cell))
    assert jax.tree.structure(same) == jax.tree.structure(cell)
    for one, other in zip(jax.tree.leaves(same), jax.tree.leaves(cell), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("network.time.query"), "lack network.time.query"),
        (lambda weights: weights.update(extra=np.zeros(3)), "also hold extra"),
        (lambda weights: weights.update({RATE: np.zeros(2, np.float32)}), rf"{RATE} is float32\[2\] where"),
        (lambda weights: weights.update({RATE: np.zeros(())}), rf"{RATE} is float64\[\] where"),
    ],
)
def test_weights_of_another_cell_are_refused(change, message: str) -> None:
    weights = dict(cell_weights(CELL))
    change(weights)
    with pytest.raises(MnemoError, match=message):
        with_weights(CELL, weights)
