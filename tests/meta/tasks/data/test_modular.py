"""Arithmetic modulo a number."""

import jax
import numpy as np
import pytest

from mnemo_compile.meta.tasks.data._modular import Modular, ModularConfig


@pytest.mark.parametrize("operation", ["sum", "product"])
def test_the_target_is_the_result_under_the_names_of_the_task(operation: str) -> None:
    data = Modular(ModularConfig.model_validate({"modulus": 7, "operation": operation}))
    names = data.draw(jax.random.key(0))
    batch = data.batch(names, jax.random.key(1), "train", 64)
    numbers = np.argsort(np.asarray(names))
    a, b = (numbers[np.asarray(batch.inputs)[:, place]] for place in (0, 1))
    expected = (a + b if operation == "sum" else a * b) % 7
    np.testing.assert_array_equal(numbers[np.asarray(batch.targets)[:, 2]], expected)
    assert batch.weight is not None and not np.asarray(batch.weight)[:, :2].any()
