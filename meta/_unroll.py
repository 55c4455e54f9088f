"""The inner loop: many tasks of one family trained at once by the cell, over one truncation of the horizon."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mnemo_compile import _step
from mnemo_compile._layout import Layout
from mnemo_compile.cell import AbstractCell

from ._families import AbstractFamily, CLASSES

Data = tuple[Float[Array, "_ pixels"], Int[Array, " _"]]

LOSS_FLOOR = 1e-3
"""Added to a loss before its logarithm is taken, so that a solved task stops counting."""
DIVERGED = 10.0
"""A loss above this many times the initial one, or one that is not finite, ends a task."""


class Augmentation(eqx.Module):
    """How far a task may be from plain training, each drawn log-uniformly per task.

    `scale` and `tensor_scale` reparametrise: the optimizer sees w / s where the network uses w, s global or per
    tensor in [1/x, x]. `unknown_horizon` is the share of tasks whose horizon the optimizer is not told.
    """

    scale: float = eqx.field(static=True)
    tensor_scale: float = eqx.field(static=True)
    unknown_horizon: float = eqx.field(static=True)
    shortest: int = eqx.field(static=True)
    longest: int = eqx.field(static=True)


class Task(NamedTuple):
    """One inner problem and how far its training is."""

    key: PRNGKeyArray
    labels: Int[Array, " classes"]
    """The label that each class goes by."""
    scales: Float[Array, " tensors"]
    """Reparametrisation: the network's tensor over the optimizer's."""
    horizon: Int[Array, ""]
    told: Float[Array, ""]
    """What the optimizer knows of the horizon: itself, or 0."""
    initial_loss: Float[Array, ""]
    param: Float[Array, "chunks length"]
    optimizer: _step.OptimizerState


class Problem(eqx.Module):
    """A family with its data: draws tasks and trains them. All arrays but the data are per task; callers vmap."""

    family: AbstractFamily
    layout: Layout = eqx.field(static=True)
    augmentation: Augmentation
    batch: int = eqx.field(static=True)

    def __init__(self, family: AbstractFamily, cell: AbstractCell, augmentation: Augmentation, batch: int):
        self.family = family
        self.layout = Layout(family.shapes, cell.chunk_length, cell.sample_chunks)
        self.augmentation = augmentation
        self.batch = batch

    def loss(self, task: Task, params: list[Float[Array, "..."]], images: Array, labels: Array) -> Float[Array, ""]:
        """The loss on some images, of parameters as the optimizer sees them."""
        network = [w * s for w, s in zip(params, task.scales, strict=True)]
        return self.family.loss(network, images, task.labels[labels])

    def sample(self, task: Task, step: Int[Array, ""], data: Data) -> tuple[Array, Array]:
        """The batch of a step of this task: always the same one for the same data."""
        key = jax.random.fold_in(task.key, step)
        index = jax.random.randint(key, (self.batch,), 0, data[0].shape[0])
        return data[0][index], data[1][index]

    def draw(self, key: PRNGKeyArray, cell: AbstractCell, data: Data, truncation: int) -> Task:
        """A fresh task. Its horizon is a multiple of `truncation`."""
        a = self.augmentation
        keys = jax.random.split(key, 7)
        tensors = len(self.family.shapes)

        def log_uniform(key: PRNGKeyArray, low: float, high: float, shape: tuple[int, ...] = ()) -> Array:
            return jnp.exp(jax.random.uniform(key, shape, minval=jnp.log(low), maxval=jnp.log(high)))

        scales = log_uniform(keys[0], 1 / a.scale, a.scale) * log_uniform(
            keys[1], 1 / a.tensor_scale, a.tensor_scale, (tensors,)
        )
        truncations = log_uniform(keys[2], float(a.shortest), float(a.longest)) / truncation
        horizon = truncation * jnp.maximum(jnp.round(truncations).astype(jnp.int32), 1)
        known = jax.random.uniform(keys[3]) >= a.unknown_horizon
        deviations, means = (
            (self.layout.owner @ np.array(of_tensors, np.float32))[:, None] * self.layout.valid
            for of_tensors in (self.family.deviations, self.family.means)
        )
        # One draw for all tensors: a draw for each takes XLA long to compile.
        start = deviations * jax.random.normal(keys[4], self.layout.valid.shape) + means
        task = Task(
            key=jax.random.key_data(keys[5]),
            labels=jax.random.permutation(keys[6], CLASSES),
            scales=scales,
            horizon=horizon,
            told=jnp.where(known, horizon, 0).astype(jnp.float32),
            initial_loss=jnp.ones(()),
            param=jnp.asarray(start) / (self.layout.owner @ scales)[:, None],
            optimizer=_step.init(cell, self.layout),
        )
        first = self.sample(task, jnp.array(-1), data)
        return task._replace(initial_loss=self.loss(task, _step.unpack(self.layout, task.param), *first))

    def train(
        self, cell: AbstractCell, task: Task, data: Data, judge: Data, steps: int
    ) -> tuple[Task, Float[Array, "steps two"]]:
        """The task some steps on, and before each step the loss on its batch and on one of `judge`.

        Differentiable in the cell.

        The derivative goes through the inner gradients too. Held constant, as in Andrychowicz et al. 2016, section
        2.1, they hide that later steps mend the noise of earlier ones, and the cell learns steps that are too small.
        """
        # Recomputing a step in the backward pass is cheaper than keeping all of its intermediate values.
        step = jax.checkpoint(
            lambda cell, param, grad, optimizer: _step.step(
                cell, self.layout, param, grad, optimizer, total_steps=task.told
            )
        )

        def one(carry: tuple[Array, _step.OptimizerState], _: Any) -> tuple[tuple[Array, Any], Array]:
            param, optimizer = carry
            step_number = optimizer.step + optimizer.skipped
            images, labels = self.sample(task, step_number, data)
            params = _step.unpack(self.layout, param)
            loss, grads = jax.value_and_grad(lambda params: self.loss(task, params, images, labels))(params)
            judged = self.loss(task, params, *self.sample(task, step_number, judge))
            return step(cell, param, _step.pack(self.layout, grads), optimizer), jnp.stack([loss, judged])

        (param, optimizer), losses = jax.lax.scan(one, (task.param, task.optimizer), length=steps)
        return task._replace(param=param, optimizer=optimizer), losses


def meta_objective(losses: Float[Array, "tasks steps two"], initial: Float[Array, " tasks"]) -> Float[Array, ""]:
    """Mean log-loss over tasks, steps and both kinds of images.

    Training images alone would reward a cell that learns them by heart. A diverged step counts as the worst loss that
    still counts.
    """
    worst = DIVERGED * initial[:, None, None]
    clipped = jnp.where(jnp.isfinite(losses), jnp.minimum(losses, worst), worst)
    return jnp.mean(jnp.log(clipped + LOSS_FLOOR))


def finished(
    task: Task, losses: Float[Array, "tasks steps two"]
) -> tuple[Bool[Array, " tasks"], Bool[Array, " tasks"]]:
    """Which of the tasks are at their horizon, and which have diverged."""
    diverged = ~jnp.all(losses[:, :, 0] < DIVERGED * task.initial_loss[:, None], axis=1)
    done = task.optimizer.step + task.optimizer.skipped >= task.horizon
    return done, diverged
