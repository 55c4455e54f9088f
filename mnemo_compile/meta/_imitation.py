"""Imitation: the cell's step is drawn towards that of a tuned optimizer on the same gradients.

A warm start: the derivative of a distance is cheap and says at once which way to go, and how far the teacher gets is
where the cell ends. To get further, another run goes on from there with an estimator that looks at the loss.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._estimators import AbstractEstimator, AbstractUnroll, draw, Estimate, Inner, replaced, Weights
from ._unroll import DIVERGED, meta_objective, Problem, Task

RATES = tuple(10 ** (exponent / 2) for exponent in range(-8, 1))
"""Half decades from 1e-4 to 1, of which the teacher's learning rate is one."""
TRIED_ON = 4
"""Tasks that each rate is tried on, at most."""
WEIGHT_DECAY = 1e-4
"""The teacher's: the default of optax."""
FLOOR = 0.1
"""A teacher's step that is below this share of what it would be at the full rate counts as if it were that long."""

_ADAM = optax.scale_by_adam()


class Lesson(eqx.Module):
    """An inner problem that a teacher takes part in, or many of them side by side."""

    task: Task
    teacher: optax.ScaleByAdamState
    rate: Float[Array, "*tasks"]
    """The teacher's learning rate at its start."""
    leads: Bool[Array, "*tasks"]
    """Whether the teacher's steps move the parameters, and not the cell's."""
    alone: bool = eqx.field(static=True, default=False)
    """Whether the teacher trains by itself, to be judged."""


class _Taught(NamedTuple):
    """One step of the teacher."""

    step: Float[Array, "chunks length"]
    full: Float[Array, "chunks length"]
    """Adam's part of it at the full rate: neither decay nor schedule."""
    share: Float[Array, ""]
    """Of the full rate."""
    teacher: optax.ScaleByAdamState


class Imitated(AbstractUnroll):
    """A family whose tasks are lessons. The loss of a truncation is how far the cell's steps are from the teacher's.

    The teacher is AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101). It knows of the horizon what the cell is told:
    its rate goes down to zero as a cosine where the cell knows when that is, and else stays. It trains the network
    as that is, and the reparametrisation is put upon its step: in coordinates w / s that is s times as small.

    At each step both see the same gradient, and both keep their state by it; the parameters go where one of them leads.
    Which of them is drawn for each task, so that the cell learns from the teacher's trainings and is corrected in its
    own, which are those that it will meet (Ross et al. 2011, arXiv 1011.0686: there the two alternate in one training).
    """

    problem: Problem
    teacher_leads: float = eqx.field(static=True, default=0.5)
    """Share of tasks whose parameters the teacher's steps move."""

    def draw(self, weights: Weights, key: PRNGKeyArray) -> Lesson:
        keys = jax.random.split(key)
        task = self.problem.draw(weights, keys[0])
        leads = jax.random.uniform(keys[1]) < self.teacher_leads
        return Lesson(task, self._teacher(task), jnp.full((), jnp.nan), leads)

    def run(self, weights: Weights, inner: Lesson) -> tuple[Lesson, Float[Array, ""]]:
        """The lesson a truncation on, and the mean distance; of a teacher alone, the mean log-loss.

        Differentiable in the weights through the cell's steps and its state. Parameters, and with them gradients and
        the teacher, are taken as given: where a step leads to is for no one to be credited with.
        """
        problem, task = self.problem, self.problem.maybe_another(weights, inner.task)
        begins = inner.task.taken == inner.task.restart
        teacher = jax.tree.map(lambda new, old: jnp.where(begins, new, old), self._teacher(task), inner.teacher)
        cell = problem.cell_with(weights)

        def one(carry: tuple, number: Array) -> tuple[tuple, tuple[Array, Array]]:
            param, optimizer, teacher = carry
            seen = problem.observe(task, param, number)
            # What is not finite ends the task; until then neither of the two is to lose its state over it.
            grad = jnp.where(jnp.all(jnp.isfinite(seen.grad)), seen.grad, 0.0)
            taught = self._teach(task, inner.rate, param, grad, teacher)
            led, distance = param + taught.step, jnp.zeros(())
            if not inner.alone:
                stepped, optimizer = problem.step(cell, task, param, grad, optimizer)
                distance = self._distance(stepped - param, taught)
                led = jnp.where(inner.leads, led, jax.lax.stop_gradient(stepped))
            return (led, optimizer, taught.teacher), (distance, jnp.stack([seen.loss, seen.judged]))

        numbers = task.taken + jnp.arange(problem.truncation)
        (param, optimizer, teacher), (distances, losses) = jax.lax.scan(
            one, (task.param, task.optimizer, teacher), numbers
        )
        following = task._replace(
            param=param,
            optimizer=optimizer,
            taken=task.taken + problem.truncation,
            diverged=task.diverged | ~jnp.all(losses[:, 0] < DIVERGED * task.initial_loss),
        )
        value = meta_objective(losses, task.initial_loss) if inner.alone else jnp.mean(distances)
        return dataclasses.replace(inner, task=following, teacher=teacher), value

    def ended(self, inner: Lesson) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        return self.problem.ended(inner.task)

    @staticmethod
    def _teacher(task: Task) -> optax.ScaleByAdamState:
        state = _ADAM.init(task.param)
        assert isinstance(state, optax.ScaleByAdamState)
        return state

    @staticmethod
    def _teach(
        task: Task,
        rate: Float[Array, ""],
        param: Float[Array, "chunks length"],
        grad: Float[Array, "chunks length"],
        teacher: optax.ScaleByAdamState,
    ) -> _Taught:
        progress = jnp.minimum(teacher.count / jnp.maximum(task.told, 1), 1)
        share = jnp.where(task.told > 0, 0.5 * (1 + jnp.cos(jnp.pi * progress)), 1.0)
        direction, following = _ADAM.update(grad / task.scales, teacher)
        assert isinstance(following, optax.ScaleByAdamState)
        full = -rate * jnp.asarray(direction) / task.scales
        return _Taught(share * (full - rate * WEIGHT_DECAY * param), full, share, following)

    def _distance(self, step: Float[Array, "chunks length"], taught: _Taught) -> Float[Array, ""]:
        """‖u − u*‖² / ‖u*‖², the mean over the tensors that had a gradient; ‖u*‖ is without decay, and has a floor.

        A ratio for each tensor: how large its steps are, and how many coordinates it has, does not count.
        """
        owner, valid = jnp.asarray(self.problem.layout.owner), self.problem.layout.valid

        def squares(rows: Array) -> Float[Array, " tensors"]:
            return jnp.sum(jnp.square(rows) * valid, axis=1) @ owner

        full = squares(taught.full)
        counts = full > 0
        scale = jnp.where(counts, jnp.square(jnp.maximum(taught.share, FLOOR)) * full, 1.0)
        relative = jnp.where(counts, squares(step - taught.step) / scale, 0.0)
        return jnp.sum(relative) / jnp.maximum(jnp.sum(counts), 1)


class Imitation(AbstractEstimator):
    """Truncated backpropagation of the distance from a teacher. What it looks at is an [`Imitated`][] family.

    The teacher's rate is tuned for the family when the run begins, to the lowest mean log-loss of the first truncations
    of a few tasks, and carried with each task.
    """

    tasks: int = eqx.field(static=True, default=8)
    truncations: int = eqx.field(static=True, default=10)
    """Of the trainings that the teacher's rate is tuned by."""

    def init(self, unroll: AbstractUnroll, weights: Weights, key: PRNGKeyArray) -> Lesson:
        keys = jax.random.split(key)
        lessons = draw(unroll, weights, keys[0], self.tasks)
        rate = self._tuned(unroll, weights, keys[1])
        return dataclasses.replace(lessons, rate=jnp.broadcast_to(rate, lessons.rate.shape))

    def step(self, unroll: AbstractUnroll, weights: Weights, carried: Any, key: PRNGKeyArray) -> tuple[Estimate, Any]:
        def distance(weights: Weights, lesson: Inner) -> tuple[Array, Inner]:
            following, value = unroll.run(weights, lesson)
            return value, following

        def of_one(lesson: Inner) -> tuple[Array, Weights, Inner]:
            (value, following), gradient = jax.value_and_grad(distance, has_aux=True)(weights, lesson)
            # A cell may have a step and no derivative where a tensor has never had a gradient. Of a task that is well
            # otherwise, that weight learns nothing.
            keeps = ~jnp.isfinite(value)
            return value, jax.tree.map(lambda g: jnp.where(keeps | jnp.isfinite(g), g, 0.0), gradient), following

        values, gradients, following = jax.vmap(of_one)(carried)
        done, diverged = jax.vmap(unroll.ended)(following)
        fresh = draw(unroll, weights, key, self.tasks)
        following = replaced(done | diverged, dataclasses.replace(fresh, rate=carried.rate), following)
        gradient = jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)
        return Estimate(gradient, jnp.mean(values), jnp.sum(diverged)), following

    def _tuned(self, unroll: AbstractUnroll, weights: Weights, key: PRNGKeyArray) -> Float[Array, ""]:
        drawn = draw(unroll, weights, key, self.tasks)
        few = jax.tree.map(lambda leaf: leaf[:TRIED_ON], drawn)

        def objective(rate: Array, lesson: Lesson) -> Array:
            alone = dataclasses.replace(lesson, rate=rate, alone=True)
            _, objectives = jax.lax.scan(lambda held, _: unroll.run(weights, held), alone, length=self.truncations)
            return jnp.mean(objectives)

        rates = jnp.asarray(RATES)
        objectives = jax.vmap(jax.vmap(objective, in_axes=(None, 0)), in_axes=(0, None))(rates, few)
        return rates[jnp.argmin(jnp.mean(objectives, axis=1))]
