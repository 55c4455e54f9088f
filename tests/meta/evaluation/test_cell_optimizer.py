"""A cell as an optimizer of optax."""

import numpy as np
import optax

from mnemo_compile.cell import cell_config
from mnemo_compile.meta.evaluation import TaskConfig
from mnemo_compile.meta.evaluation._cell_optimizer import as_optax
from mnemo_compile.meta.evaluation._training import train


def test_the_reference_of_the_adam_cell_trains_as_adam(line: TaskConfig) -> None:
    cell = cell_config({"kind": "adam"}).build()
    ours = train(line, lambda setting, steps: as_optax(cell, steps), np.zeros(1), [0])
    adam = optax.adam(1e-3)
    theirs = train(line, lambda setting, steps: optax.with_extra_args_support(adam), np.zeros(1), [0])
    np.testing.assert_allclose(ours.curves, theirs.curves, rtol=1e-3)
