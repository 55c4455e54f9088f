"""The inner loop: a task of a family trained by the cell, a truncation at a time."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..step import reference
from ..step import Layout
from ..cell import AbstractCell

from ._estimators import AbstractUnroll, Weights
from .tasks import AbstractFamily

LOSS_FLOOR = 1e-3
"""Added to a loss, relative to the initial one, before its logarithm is taken: a solved task stops counting."""
DIVERGED = 10.0
"""A loss above this many times the initial one, or one that is not finite, ends a task."""


AT_START, OF_ANOTHER = 2**32 - 1, 2**32 - 2
"""In the place of a step's number: for the loss at the start, and for the task that a restart makes."""


class Augmentation(NamedTuple):
    """How far a task may be from plain training; each is drawn once a task.

    Scales reparametrise: the optimizer sees w / s where the network uses w, with s log-uniform in [1/x, x], one for
    all tensors, for each, or for each coordinate.
    """

    shortest: int
    longest: int
    """Horizons are drawn log-uniformly between these, in inner steps."""
    unknown_horizon: float = 0.0
    """Share of tasks whose horizon the optimizer is not told."""
    scale: float = 1.0
    tensor_scale: float = 1.0
    coordinate_scale: float = 1.0
    loss_scale: float = 1.0
    """The gradient is multiplied by a number in [1/x, x]."""
    gradient_noise: float = 0.0
    """To the gradient is added noise of up to this many times its tensor's root mean square."""
    frozen: float = 0.0
    """Share of tasks in which each tensor gets no gradient with probability 1/4."""
    restart: float = 0.0
    """Share of tasks that become another task of the family on the way, with the parameters they have and a fresh
    optimizer, as in fine-tuning."""
    late: float = 0.0
    """How much more the end of a training counts than its start: a step's weight goes from 1 − late to 1 + late."""


class Task(NamedTuple):
    """One inner problem and how far its training is."""

    key: PRNGKeyArray
    instance: Any
    """What the family has drawn for it."""
    horizon: Int[Array, ""]
    """Steps until it is replaced."""
    taken: Int[Array, ""]
    """Steps since it was drawn."""
    restart: Int[Array, ""]
    """When it becomes another task; past the horizon if it does not."""
    told: Float[Array, ""]
    """What the optimizer knows of the horizon: steps from its own start, or 0."""
    initial_loss: Float[Array, ""]
    """That of the instance at its start."""
    diverged: Bool[Array, ""]
    scales: Float[Array, "chunks length"]
    """Reparametrisation: the network's coordinates over the optimizer's."""
    gain: Float[Array, " tensors"]
    """What the gradient of each tensor is multiplied by; 0 for a frozen one."""
    noise: Float[Array, ""]
    param: Float[Array, "chunks length"]
    optimizer: reference.OptimizerState


class Observation(NamedTuple):
    """What a step sees."""

    loss: Float[Array, ""]
    """On the batch that is trained on."""
    judged: Float[Array, ""]
    """On the batch that the optimizer is judged by besides."""
    grad: Float[Array, "chunks length"]
    """As the optimizer gets it."""


class Problem(AbstractUnroll):
    """A family as an estimator sees it. All arrays but the family's data are of one task."""

    family: AbstractFamily
    cell: AbstractCell
    """Of its weights only those are used that are not meta-trained."""
    longest: Float[Array, ""] | None
    """In the place of the augmentation's longest horizon: a number that one program takes many of."""
    layout: Layout = eqx.field(static=True)
    augmentation: Augmentation = eqx.field(static=True)
    truncation: int = eqx.field(static=True)

    def __init__(self, family: AbstractFamily, cell: AbstractCell, augmentation: Augmentation, truncation: int):
        self.family = family
        self.cell = cell
        self.longest = None
        self.layout = Layout(family.shapes, cell.chunk_length, cell.sample_chunks)
        self.augmentation = augmentation
        self.truncation = truncation

    def limited(self, longest: Float[Array, ""]) -> "Problem":
        """The same family, with another longest horizon."""
        return eqx.tree_at(lambda problem: problem.longest, self, longest, is_leaf=lambda leaf: leaf is None)

    def cell_with(self, weights: Weights) -> AbstractCell:
        """The cell, with these weights in the place of its own."""
        return eqx.combine(weights, self.cell)

    def _of_coordinates(self, of_tensors: Float[Array, " tensors"]) -> Float[Array, "chunks one"]:
        return (jnp.asarray(self.layout.owner) @ of_tensors)[:, None]

    def network(self, task: Task) -> list[Float[Array, "..."]]:
        """The network's tensors."""
        return reference.unpack(self.layout, task.param * task.scales)

    def draw(self, weights: Weights, key: PRNGKeyArray) -> Task:
        a = self.augmentation
        keys = jax.random.split(key, 14)
        tensors = len(self.family.tensors)

        def log_uniform(key: PRNGKeyArray, most: float | Array, shape: tuple[int, ...] = ()) -> Array:
            return jnp.exp(jax.random.uniform(key, shape, minval=-jnp.log(most), maxval=jnp.log(most)))

        longest = a.longest if self.longest is None else self.longest
        middle, half = (a.shortest * longest) ** 0.5, (longest / a.shortest) ** 0.5
        truncations = jnp.round(middle * log_uniform(keys[0], half) / self.truncation).astype(jnp.int32)
        horizon = self.truncation * jnp.maximum(truncations, 1)
        known = jax.random.uniform(keys[1]) >= a.unknown_horizon
        becomes = self.truncation * jnp.round(
            jax.random.uniform(keys[2], minval=0.1, maxval=0.6) * horizon / self.truncation
        ).astype(jnp.int32)
        restarts = (jax.random.uniform(keys[3]) < a.restart) & (becomes > 0)
        restart = jnp.where(restarts, becomes, horizon + 1)
        scales = self._of_coordinates(
            log_uniform(keys[4], a.scale) * log_uniform(keys[5], a.tensor_scale, (tensors,))
        ) * log_uniform(keys[6], a.coordinate_scale, self.layout.valid.shape)
        lives = (jax.random.uniform(keys[7]) >= a.frozen) | (jax.random.uniform(keys[8], (tensors,)) >= 0.25)
        deviations, means = (
            self._of_coordinates(jnp.array([getattr(tensor, name) for tensor in self.family.tensors]))
            * self.layout.valid
            for name in ("deviation", "mean")
        )
        # One draw for all tensors: a draw for each takes XLA long to compile.
        start = deviations * jax.random.normal(keys[9], self.layout.valid.shape) + means
        task = Task(
            key=jax.random.key_data(keys[10]),
            instance=self.family.draw(keys[11]),
            horizon=horizon,
            taken=jnp.zeros((), jnp.int32),
            restart=restart,
            told=jnp.where(known, jnp.where(restarts, restart, horizon), 0).astype(jnp.float32),
            initial_loss=jnp.ones(()),
            diverged=jnp.zeros((), bool),
            scales=scales,
            gain=log_uniform(keys[12], a.loss_scale) * lives,
            noise=a.gradient_noise * jax.random.uniform(keys[13]),
            param=start / scales,
            optimizer=reference.init(self.cell_with(weights), self.layout),
        )
        return task._replace(initial_loss=self._initial_loss(task))

    def _key(self, task: Task, number: Int[Array, ""] | int) -> PRNGKeyArray:
        return jax.random.fold_in(jax.random.wrap_key_data(task.key), number)

    def _initial_loss(self, task: Task) -> Float[Array, ""]:
        batch = self.family.batch(task.instance, self._key(task, AT_START), "train")
        # A loss that is zero at the start would make every step a divergence.
        return jnp.maximum(jnp.abs(self.family.loss(self.network(task), batch)), 1e-6)

    def maybe_another(self, weights: Weights, task: Task) -> Task:
        """The task, or at its restart another one with the same parameters."""
        if self.augmentation.restart == 0:
            return task
        other = task._replace(
            instance=self.family.draw(self._key(task, OF_ANOTHER)),
            told=jnp.where(task.told > 0, task.horizon - task.taken, 0).astype(jnp.float32),
            optimizer=reference.init(self.cell_with(weights), self.layout),
        )
        other = other._replace(initial_loss=jnp.maximum(self._initial_loss(other), task.initial_loss))
        return jax.tree.map(lambda new, old: jnp.where(task.taken == task.restart, new, old), other, task)

    def advance(self, weights: Weights, task: Task, steps: int) -> tuple[Task, Float[Array, "steps two"]]:
        """The task some steps on, and before each step the loss on its batch and on one of what it is judged by.

        Differentiable in the weights, and then through the inner gradients too. Held constant, as in Andrychowicz et
        al. 2016, section 2.1, they hide that later steps mend the noise of earlier ones, and the cell learns steps that
        are too small.
        """
        cell = self.cell_with(weights)

        def one(
            carry: tuple[Array, reference.OptimizerState], number: Array
        ) -> tuple[tuple[Array, reference.OptimizerState], Array]:
            param, optimizer = carry
            seen = self.observe(task, param, number)
            return self.step(cell, task, param, seen.grad, optimizer), jnp.stack([seen.loss, seen.judged])

        numbers = task.taken + jnp.arange(steps)
        (param, optimizer), losses = jax.lax.scan(one, (task.param, task.optimizer), numbers)
        diverged = task.diverged | ~jnp.all(losses[:, 0] < DIVERGED * task.initial_loss)
        return task._replace(param=param, optimizer=optimizer, taken=task.taken + steps, diverged=diverged), losses

    def observe(self, task: Task, param: Float[Array, "chunks length"], number: Int[Array, ""]) -> Observation:
        """What the step with that number sees at these parameters."""
        family, layout, key = self.family, self.layout, self._key(task, number)
        batch = family.batch(task.instance, key, "train")
        loss, grad = jax.value_and_grad(lambda param: family.loss(reference.unpack(layout, param * task.scales), batch))(
            param
        )
        judged = family.loss(reference.unpack(layout, param * task.scales), family.batch(task.instance, key, "judge"))
        return Observation(loss, judged, self._disturbed(task, grad, key))

    def step(
        self,
        cell: AbstractCell,
        task: Task,
        param: Float[Array, "chunks length"],
        grad: Float[Array, "chunks length"],
        optimizer: reference.OptimizerState,
    ) -> tuple[Float[Array, "chunks length"], reference.OptimizerState]:
        """The cell's step."""

        # Recomputing a step in the backward pass is cheaper than keeping all of its intermediate values.
        @jax.checkpoint
        def step(cell: AbstractCell, param: Array, grad: Array, optimizer: reference.OptimizerState) -> Any:
            return reference.step(cell, self.layout, param, grad, optimizer, total_steps=task.told)

        return step(cell, param, grad, optimizer)

    def _disturbed(
        self, task: Task, grad: Float[Array, "chunks length"], key: PRNGKeyArray
    ) -> Float[Array, "chunks length"]:
        """The gradient that the optimizer sees."""
        if self.augmentation.gradient_noise > 0:
            owner = jnp.asarray(self.layout.owner)
            sizes = jnp.asarray(self.layout.facts["coordinates"])
            rms = jnp.sqrt((jnp.sum(grad * grad, axis=1) @ owner) / sizes)
            noise = jax.random.normal(jax.random.fold_in(key, 1), grad.shape) * self.layout.valid
            grad = grad + task.noise * self._of_coordinates(jax.lax.stop_gradient(rms)) * noise
        return grad * self._of_coordinates(task.gain)

    def run(self, weights: Weights, inner: Task) -> tuple[Task, Float[Array, ""]]:
        inner = self.maybe_another(weights, inner)
        following, losses = self.advance(weights, inner, self.truncation)
        middle = inner.taken + 0.5 * self.truncation
        weight = 1 + self.augmentation.late * (2 * middle / inner.horizon - 1)
        return following, weight * meta_objective(losses, inner.initial_loss)

    def ended(self, inner: Task) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        return inner.taken >= inner.horizon, inner.diverged


def meta_objective(losses: Float[Array, "steps two"], initial: Float[Array, ""]) -> Float[Array, ""]:
    """Mean log-loss relative to the initial one, over steps and both kinds of batches.

    Training batches alone would reward a cell that learns them by heart. A diverged step counts as the worst loss that
    still counts.
    """
    relative = losses / initial
    clipped = jnp.where(jnp.isfinite(relative), jnp.clip(relative, 0, DIVERGED), DIVERGED)
    return jnp.mean(jnp.log(clipped + LOSS_FLOOR))
