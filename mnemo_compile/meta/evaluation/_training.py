"""Training a task of a suite with any optimizer: many settings and seeds in one program."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ..tasks import AbstractFamily, Params
from ._suites import TaskConfig

VALIDATION_BATCHES = 16
"""How many batches a validation loss is the mean of."""
BINS = 100
"""Points of a training curve. Each is the mean over an equal number of steps."""
PARAMETERS_AT_ONCE = 4_000_000
"""Largest number of parameters of all the runs that are trained side by side."""

MakeOptimizer = Callable[[Any, int], optax.GradientTransformationExtraArgs]
"""An optimizer from its setting and the number of steps."""


class Runs(NamedTuple):
    """Trainings of one task, one per row."""

    curves: Float[np.ndarray, "runs bins"]
    """Training loss on the batch of each step, before the step."""
    initial: Float[np.ndarray, " runs"]
    """The first of these losses."""
    highest: Float[np.ndarray, " runs"]
    """The highest of these losses; infinity where one is not finite."""
    validation_loss: Float[np.ndarray, " runs"]
    """Mean loss on batches of the validation split, at the end."""
    accuracy: Float[np.ndarray, " runs"]
    """Mean accuracy on those batches; not a number for a task without classes."""

    @property
    def final(self) -> Float[np.ndarray, " runs"]:
        """Training loss over the last twentieth of the steps."""
        return self.curves[:, -BINS // 20 :].mean(axis=1)

    @property
    def diverged(self) -> np.ndarray:
        """Whether a loss was not finite, or a training ended well above where it began."""
        return ~np.isfinite(self.highest) | ~(self.final < 1.5 * np.abs(self.initial))

    def rows(self, chosen: Any) -> "Runs":
        """Some of the runs."""
        return Runs(*(rows[chosen] for rows in self))


class Run(NamedTuple):
    """One training."""

    losses: Float[Array, " steps"]
    """Training loss before each step."""
    validation_losses: Float[Array, " batches"]
    accuracies: Float[Array, " batches"]


def starts(task: TaskConfig, seeds: Sequence[int]) -> tuple[list[Float[Array, "seeds ..."]], Any]:
    """The parameters that each seed's training starts from, and its instance of the family."""
    family = task.build()

    def start(seed: Array) -> tuple[Params, Any]:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 0), len(family.tensors))
        params = [
            tensor.mean + tensor.deviation * jax.random.normal(key, tensor.shape)
            for tensor, key in zip(family.tensors, keys, strict=True)
        ]
        if task.before is not None:
            before = task.before.family.build()
            instance = before.draw(jax.random.fold_in(jax.random.key(seed), 3))
            key = jax.random.fold_in(jax.random.key(seed), 4)
            params, _ = _train(before, optax.adamw(1e-3), params, instance, key, task.before.steps)
        return params, family.draw(jax.random.fold_in(jax.random.key(seed), 1))

    return jax.jit(jax.vmap(start))(jnp.asarray(seeds, jnp.uint32))


def batch_key(seed: Array | int) -> PRNGKeyArray:
    """The key of a seed's batches; the batch of a step is drawn by `fold_in(key, step)`."""
    return jax.random.fold_in(jax.random.key(seed), 2)


def run(
    family: AbstractFamily,
    optimizer: optax.GradientTransformation,
    params: Params,
    instance: Any,
    seed: Array,
    steps: int,
) -> Run:
    """Trains for this many steps, then evaluates on the validation split."""
    key = batch_key(seed)
    trained, losses = _train(family, optimizer, params, instance, key, steps)

    def validate(key: PRNGKeyArray) -> tuple[Array, Array]:
        batch = family.batch(instance, key, "validation")
        return family.loss(trained, batch), family.accuracy(trained, batch)

    keys = jax.random.split(jax.random.fold_in(key, steps), VALIDATION_BATCHES)
    return Run(losses, *jax.lax.map(validate, keys))


def _train(
    family: AbstractFamily,
    optimizer: optax.GradientTransformation,
    params: Params,
    instance: Any,
    key: PRNGKeyArray,
    steps: int,
) -> tuple[Params, Float[Array, " steps"]]:
    """The parameters to evaluate after this many steps, and the loss before each step."""
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
        losses, validation, accuracy = run(family, make(setting, steps), start, instance, seed, steps)
        highest = jnp.where(jnp.all(jnp.isfinite(losses)), jnp.max(losses), jnp.inf)
        return losses.reshape(BINS, -1).mean(axis=1), losses[0], highest, validation.mean(), accuracy.mean()

    size = sum(int(np.prod(shape)) for shape in family.shapes)
    at_once = max(1, min(len(which), PARAMETERS_AT_ONCE // size))
    lanes = (settings, jnp.asarray(seeds, jnp.uint32), jnp.asarray(which))
    rows = jax.jit(lambda lanes: jax.lax.map(lambda row: lane(*row), lanes, batch_size=at_once))(lanes)
    return Runs(*(np.asarray(row) for row in rows))
