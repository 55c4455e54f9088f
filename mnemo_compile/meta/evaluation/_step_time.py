"""The time of a cell's step beside AdamW's."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...cell import AbstractCell
from ._cell_optimizer import as_optax
from ._suites import TaskConfig

REPEATS = 20
"""How many steps are timed."""


def relative_step_time(cell: AbstractCell, task: TaskConfig) -> float:
    """The time of the reference step over that of `optax.adamw`, both jitted, on the task's network."""
    key = jax.random.key(0)
    family = task.build()
    params = [jax.random.normal(jax.random.fold_in(key, place), shape) for place, shape in enumerate(family.shapes)]
    return _seconds(as_optax(cell, 1000, family.names), params) / _seconds(optax.adamw(1e-3), params)


def _seconds(optimizer: optax.GradientTransformation, params: list[Any]) -> float:
    """The median time of a step; the parameters serve as gradients."""
    optimizer = optax.with_extra_args_support(optimizer)

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(params, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step)
    now = compiled(params, optimizer.init(jax.tree.map(jnp.copy, params)))
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        now = jax.block_until_ready(compiled(*now))
        times.append(time.perf_counter() - began)
    return float(np.median(times))
