"""The inner loop of imitation: the loss is the distance of the cell's steps from those of a teacher."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._interface import AbstractInnerLoop, Weights
from ._loop import InnerLoop
from ._objective import DIVERGED, meta_objective
from ._state import InnerState

WEIGHT_DECAY = 1e-4
"""The teacher's; the default of optax."""
FLOOR = 0.1
"""A teacher's step below this fraction of its step at the full rate counts as if it were that long."""

_ADAM = optax.scale_by_adam()


class ImitationState(eqx.Module):
    """One inner training with a teacher, or many of them side by side."""

    inner: InnerState
    teacher: optax.ScaleByAdamState
    rate: Float[Array, "*tasks"]
    """The teacher's learning rate at its start."""
    teacher_leads: Bool[Array, "*tasks"]
    """Whether the teacher's steps move the parameters, and not the cell's."""
    teacher_alone: bool = eqx.field(static=True, default=False)
    """Whether only the teacher trains, so that its rate can be tuned."""


class _TeacherStep(NamedTuple):
    """One step of the teacher."""

    update: Float[Array, "chunks length"]
    full: Float[Array, "chunks length"]
    """Adam's part of it at the full rate, without decay and schedule."""
    fraction: Float[Array, ""]
    """The schedule's fraction of the full rate."""
    teacher: optax.ScaleByAdamState


class ImitationLoop(AbstractInnerLoop):
    """Trainings with a teacher. The loss of a truncation is how far the cell's steps are from the teacher's.

    The teacher is AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101). It knows as much of the horizon as the cell: if
    the cell knows it, the teacher's rate falls to zero as a cosine, else it stays constant. The teacher trains the
    network without the reparametrisation, which is then applied to its step: in coordinates w / s it is s times as
    small.

    At each step both see the same gradient and update their state with it. The parameters follow one of the two, which
    is drawn for each task. So the cell learns from the teacher's trainings and is corrected in its own, which it will
    meet later (Ross et al. 2011, arXiv 1011.0686, where the two alternate in one training).
    """

    loop: InnerLoop
    teacher_leads: float = eqx.field(static=True, default=0.5)
    """Fraction of tasks whose parameters the teacher's steps move."""

    def draw(self, weights: Weights, key: PRNGKeyArray) -> ImitationState:
        keys = jax.random.split(key)
        inner = self.loop.draw(weights, keys[0])
        leads = jax.random.uniform(keys[1]) < self.teacher_leads
        return ImitationState(inner, self._teacher(inner), jnp.full((), jnp.nan), leads)

    def unroll(self, weights: Weights, state: ImitationState) -> tuple[ImitationState, Float[Array, ""]]:
        """The training one truncation later, and the mean distance; of a teacher alone, the mean log-loss.

        Differentiable in the weights through the cell's steps and its state. Parameters, gradients and the teacher are
        held constant: no step gets credit for where it leads.
        """
        loop, inner = self.loop, self.loop.maybe_restart(weights, state.inner)
        begins = state.inner.step == state.inner.restart
        teacher = jax.tree.map(lambda new, old: jnp.where(begins, new, old), self._teacher(inner), state.teacher)
        cell = loop.cell_with(weights)

        def one(carry: tuple, number: Array) -> tuple[tuple, tuple[Array, Array]]:
            param, optimizer, teacher = carry
            seen = loop.observe(inner, param, number)
            # What is not finite ends the task; until then it must not spoil the state of either.
            grad = jnp.where(jnp.all(jnp.isfinite(seen.grad)), seen.grad, 0.0)
            lesson = self._teach(inner, state.rate, param, grad, teacher)
            following, distance = param + lesson.update, jnp.zeros(())
            if not state.teacher_alone:
                stepped, optimizer = loop.step(cell, inner, param, grad, optimizer)
                distance = self._distance(stepped - param, lesson)
                following = jnp.where(state.teacher_leads, following, jax.lax.stop_gradient(stepped))
            return (following, optimizer, lesson.teacher), (distance, jnp.stack([seen.loss, seen.meta_loss]))

        numbers = inner.step + jnp.arange(loop.truncation)
        (param, optimizer, teacher), (distances, losses) = jax.lax.scan(
            one, (inner.param, inner.optimizer, teacher), numbers
        )
        after = inner._replace(
            param=param,
            optimizer=optimizer,
            step=inner.step + loop.truncation,
            diverged=inner.diverged | ~jnp.all(losses[:, 0] < DIVERGED * inner.initial_loss),
        )
        value = meta_objective(losses, inner.initial_loss) if state.teacher_alone else jnp.mean(distances)
        return dataclasses.replace(state, inner=after, teacher=teacher), value

    def ended(self, state: ImitationState) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        return self.loop.ended(state.inner)

    @staticmethod
    def _teacher(inner: InnerState) -> optax.ScaleByAdamState:
        state = _ADAM.init(inner.param)
        assert isinstance(state, optax.ScaleByAdamState)
        return state

    @staticmethod
    def _teach(
        inner: InnerState,
        rate: Float[Array, ""],
        param: Float[Array, "chunks length"],
        grad: Float[Array, "chunks length"],
        teacher: optax.ScaleByAdamState,
    ) -> _TeacherStep:
        progress = jnp.minimum(teacher.count / jnp.maximum(inner.total_steps, 1), 1)
        fraction = jnp.where(inner.total_steps > 0, 0.5 * (1 + jnp.cos(jnp.pi * progress)), 1.0)
        direction, following = _ADAM.update(grad / inner.scales, teacher)
        assert isinstance(following, optax.ScaleByAdamState)
        full = -rate * jnp.asarray(direction) / inner.scales
        return _TeacherStep(fraction * (full - rate * WEIGHT_DECAY * param), full, fraction, following)

    def _distance(self, step: Float[Array, "chunks length"], lesson: _TeacherStep) -> Float[Array, ""]:
        """‖u − u*‖² / ‖u*‖², the mean over the tensors that had a gradient; ‖u*‖ is without decay, and has a floor.

        It is a ratio per tensor, so that neither the size of a tensor's steps nor its number of coordinates counts.
        """
        owner, valid = jnp.asarray(self.loop.layout.owner), self.loop.layout.valid

        def squares(rows: Array) -> Float[Array, " tensors"]:
            return jnp.sum(jnp.square(rows) * valid, axis=1) @ owner

        full = squares(lesson.full)
        counts = full > 0
        scale = jnp.where(counts, jnp.square(jnp.maximum(lesson.fraction, FLOOR)) * full, 1.0)
        relative = jnp.where(counts, squares(step - lesson.update) / scale, 0.0)
        return jnp.sum(relative) / jnp.maximum(jnp.sum(counts), 1)
