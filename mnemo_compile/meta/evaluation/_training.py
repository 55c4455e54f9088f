"""Training a task of a suite with any optimizer: many settings and seeds in one program."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ...step import reference
from ...step import Layout
from ...cell import AbstractCell

from ..tasks import AbstractFamily, Params
from ._suites import TaskConfig

HELD_OUT = 16
"""Batches that a validation loss is the mean of."""
BINS = 100
"""Points of a training curve, each the mean over as many steps as all others."""
COORDINATES_AT_ONCE = 4_000_000
"""Parameters of all the runs that are trained side by side."""

MakeOptimizer = Callable[[Any, int], optax.GradientTransformationExtraArgs]
"""An optimizer from its setting and the number of steps."""


class Runs(NamedTuple):
    """Trainings of one task, a row each."""

    curves: Float[np.ndarray, "runs bins"]
    """Training loss, on the batch that each step is about to learn from."""
    initial: Float[np.ndarray, " runs"]
    """The first of them."""
    highest: Float[np.ndarray, " runs"]
    """The highest of them, infinity where one was not finite."""
    held_out: Float[np.ndarray, " runs"]
    """Mean loss of held-out batches at the end."""
    accuracy: Float[np.ndarray, " runs"]
    """Mean accuracy on them; not a number for a task without classes."""

    @property
    def final(self) -> Float[np.ndarray, " runs"]:
        """Training loss over the last twentieth of the steps."""
        return self.curves[:, -BINS // 20 :].mean(axis=1)

    @property
    def diverged(self) -> np.ndarray:
        """Whether a loss was not finite, or a training ended well above where it began."""
        return ~np.isfinite(self.highest) | ~(self.final < 1.5 * np.abs(self.initial))


def starts(task: TaskConfig, seeds: Sequence[int]) -> tuple[list[Float[Array, "seeds ..."]], Any]:
    """The parameters that each seed's training starts from, and what the family has drawn for it."""
    family = task.build()

    def start(seed: Array) -> tuple[Params, Any]:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 0), len(family.tensors))
        params = [
            tensor.mean + tensor.deviation * jax.random.normal(key, tensor.shape)
            for tensor, key in zip(family.tensors, keys, strict=True)
        ]
        if task.before is not None:
            before = task.before.family.build()
            drawn = before.draw(jax.random.fold_in(jax.random.key(seed), 3))
            key = jax.random.fold_in(jax.random.key(seed), 4)
            params, _ = _train(before, optax.adamw(1e-3), params, drawn, key, task.before.steps)
        return params, family.draw(jax.random.fold_in(jax.random.key(seed), 1))

    return jax.jit(jax.vmap(start))(jnp.asarray(seeds, jnp.uint32))


def _train(
    family: AbstractFamily,
    optimizer: optax.GradientTransformation,
    params: Params,
    instance: Any,
    key: PRNGKeyArray,
    steps: int,
) -> tuple[Params, Float[Array, " steps"]]:
    """The parameters that are to be judged after so many steps, and the loss before each."""
    optimizer = optax.with_extra_args_support(optimizer)

    def one(carry: tuple[Params, Any], number: Array) -> tuple[tuple[Params, Any], Array]:
        params, state = carry
        batch = family.batch(instance, jax.random.fold_in(key, number), "train")
        loss, grads = jax.value_and_grad(family.loss)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return (jax.tree.map(jnp.add, params, updates), state), loss

    (params, state), losses = jax.lax.scan(one, (params, optimizer.init(params)), jnp.arange(steps))
    if isinstance(state, optax.contrib.ScheduleFreeState):
        params = optax.contrib.schedule_free_eval_params(state, params)
    return params, losses


def train(task: TaskConfig, make: MakeOptimizer, settings: Any, seeds: Sequence[int]) -> Runs:
    """One run for every row of `settings` and the seed beside it.

    **Arguments:**

    - `make`: the optimizer from a setting.
    - `settings`: arrays whose leading axis counts the runs.
    - `seeds`: of data, start and batches; runs of one seed see the same.

    **Returns:**

    The runs, in that order. `task.steps` must be a multiple of `BINS`.
    """
    family, steps = task.build(), task.steps
    different, which = np.unique(np.asarray(seeds), return_inverse=True)
    params, instances = starts(task, different.tolist())

    def lane(setting: Any, seed: Array, place: Array) -> tuple[Array, ...]:
        start, instance = jax.tree.map(lambda rows: rows[place], (params, instances))
        key = jax.random.fold_in(jax.random.key(seed), 2)
        trained, losses = _train(family, make(setting, steps), start, instance, key, steps)

        def judge(key: PRNGKeyArray) -> tuple[Array, Array]:
            batch = family.batch(instance, key, "held_out")
            return family.loss(trained, batch), family.accuracy(trained, batch)

        keys = jax.random.split(jax.random.fold_in(key, steps), HELD_OUT)
        held_out, accuracy = jax.lax.map(judge, keys)
        highest = jnp.where(jnp.all(jnp.isfinite(losses)), jnp.max(losses), jnp.inf)
        return losses.reshape(BINS, -1).mean(axis=1), losses[0], highest, held_out.mean(), accuracy.mean()

    size = sum(int(np.prod(shape)) for shape in family.shapes)
    at_once = max(1, min(len(which), COORDINATES_AT_ONCE // size))
    lanes = (settings, jnp.asarray(seeds, jnp.uint32), jnp.asarray(which))
    rows = jax.jit(lambda lanes: jax.lax.map(lambda row: lane(*row), lanes, batch_size=at_once))(lanes)
    return Runs(*(np.asarray(row) for row in rows))


class _Packed(NamedTuple):
    """State of the reference step as an optax transformation."""

    optimizer: reference.OptimizerState


def as_optax(
    cell: AbstractCell, steps: int, lr: float | Float[Array, ""] = 1.0
) -> optax.GradientTransformationExtraArgs:
    """The reference step of a cell that is told the number of steps, as an optax transformation.

    It computes what every export of the cell computes.
    """

    def layout(params: Params) -> Layout:
        return Layout(tuple(p.shape for p in params), cell.chunk_length, cell.sample_chunks)

    def init(params: Any) -> Any:
        return _Packed(reference.init(cell, layout(params)))

    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, Any]:
        packing = layout(params)
        before, grad = reference.pack(packing, params), reference.pack(packing, updates)
        after, optimizer = reference.step(cell, packing, before, grad, state.optimizer, lr=lr, total_steps=float(steps))
        return reference.unpack(packing, after - before), _Packed(optimizer)

    return optax.GradientTransformationExtraArgs(init, update)
