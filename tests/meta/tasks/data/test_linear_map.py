"""A linear map has the condition that its configuration names, and its inputs the decay."""

import jax
import numpy as np

from mnemo_compile.meta.tasks.data._friedman import Friedman, FriedmanConfig
from mnemo_compile.meta.tasks.data._linear_map import LinearMap, LinearMapConfig


def test_a_linear_map_has_its_condition_and_outputs_of_size_1() -> None:
    data = LinearMap(LinearMapConfig(inputs=8, outputs=5, condition=100))
    instance = data.draw(jax.random.key(0))
    matrix = np.asarray(instance[0])
    values = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(values / values[0], np.geomspace(1, 0.01, 5), rtol=1e-3)
    batch = data.batch(instance, jax.random.key(1), "train", 8192)
    assert abs(float(np.mean(np.square(batch.targets))) - 1) < 0.1
    np.testing.assert_allclose(batch.inputs @ matrix, batch.targets, rtol=1e-3, atol=1e-4)


def test_the_variance_of_inputs_decays_as_a_power() -> None:
    data = LinearMap(LinearMapConfig(inputs=8, outputs=2, decay=2))
    inputs = data.batch(data.draw(jax.random.key(0)), jax.random.key(1), "train", 20000).inputs
    variances = np.linalg.eigvalsh(np.cov(inputs.T))[::-1]
    np.testing.assert_allclose(variances / variances[0], 1 / np.arange(1, 9) ** 2, rtol=0.1)
    assert abs(float(np.mean(np.square(inputs))) - 1) < 0.1


def test_only_five_columns_of_friedmans_table_matter_and_the_target_is_standardised() -> None:
    data = Friedman(FriedmanConfig(noise=0))
    order = data.draw(jax.random.key(0))
    batch = data.batch(order, jax.random.key(1), "train", 8192)
    table, target = np.asarray(batch.inputs), np.asarray(batch.targets)[:, 0]
    assert abs(target.mean()) < 0.1 and abs(target.std() - 1) < 0.1
    weights = np.linalg.lstsq(table, target, rcond=None)[0]
    # Of the linear terms, the fourth column of the task's order weighs most, and those beyond the fifth nothing.
    assert np.argmax(np.abs(weights)) == int(order[3])
    assert np.abs(weights[np.asarray(order[5:])]).max() < 0.05
