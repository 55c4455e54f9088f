"""One meta-step: unroll every family, average their meta-gradients, move the cell's weights."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from mnemo_compile import _step
from mnemo_compile.cell import AbstractCell

from ._config import RunConfig
from ._data import digits
from ._families import build_family
from ._unroll import Augmentation, Data, finished, meta_objective, Problem, Task

Weights = PyTree[Array]


class TrainerState(NamedTuple):
    """Everything that the next meta-step depends on."""

    weights: Weights
    average: Weights
    """Running average of the weights: what is validated and frozen."""
    best: Weights
    """The average with the lowest validation score so far."""
    best_score: Float[Array, ""]
    optimizer: optax.OptState
    tasks: tuple[Task, ...]
    """The tasks of each family, with a leading axis."""
    meta_step: Int[Array, ""]
    resets: Int[Array, ""]
    """Tasks ended because they diverged."""
    skipped: Int[Array, ""]
    """Meta-steps whose meta-gradient was not finite and that changed no weight."""
    skipped_in_a_row: Int[Array, ""]


class Unrolled(NamedTuple):
    """What one family's unroll gives."""

    gradient: Weights
    objective: Float[Array, ""]
    tasks: Task
    diverged: Int[Array, ""]


class Validation(NamedTuple):
    """What one validation family gives: means over its tasks."""

    objective: Float[Array, ""]
    """The meta-objective over the whole horizon."""
    final: Float[Array, ""]
    """Training loss over the last tenth of the horizon."""
    held_out: Float[Array, ""]
    """Loss on images that no task trains on, at the horizon."""


class MetaStep:
    """The compiled functions of a run."""

    def __init__(self, config: RunConfig):
        self.config = config
        self.template = config.cell.build()
        weights, self._static = eqx.partition(self.template, eqx.is_array)
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(config.outer.clip), optax.adam(config.outer.learning_rate)
        )
        parts = digits()
        self._data, self._judge, self._held_out = (_on_device(parts[name]) for name in ("train", "judge", "valid"))
        inner = config.inner
        training = Augmentation(inner.scale, inner.tensor_scale, inner.unknown_horizon, inner.shortest, inner.longest)
        plain = Augmentation(1.0, 1.0, 0.0, config.validation.steps, config.validation.steps)
        self.problems = self._problems(config.families, training)
        self.validation_problems = self._problems(config.validation.families, plain)
        self._seed = jax.random.key(config.seed)
        key = jax.ShapeDtypeStruct(self._seed.shape, self._seed.dtype)
        tasks = [eqx.filter_eval_shape(lambda w, k, p=p: self._draw(w, k, p), weights, key) for p in self.problems]
        self._draws = [_compiled(self._draw, p, weights, key) for p in self.problems]
        self._unrolls = [_compiled(self._unroll, p, weights, t, t) for p, t in zip(self.problems, tasks, strict=True)]
        self._validations = [_compiled(self._validate, p, weights) for p in self.validation_problems]
        self._apply = jax.jit(self._move)

    def init(self) -> TrainerState:
        """The state before the first meta-step."""
        weights, _ = eqx.partition(self.template, eqx.is_array)
        return TrainerState(
            weights=weights,
            average=weights,
            best=weights,
            best_score=jnp.array(jnp.inf),
            optimizer=self._optimizer.init(weights),
            tasks=tuple(draw(weights, self._key(0, index)) for index, draw in enumerate(self._draws)),
            meta_step=jnp.zeros((), jnp.int32),
            resets=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            skipped_in_a_row=jnp.zeros((), jnp.int32),
        )

    def step(self, state: TrainerState) -> tuple[TrainerState, list[Array], Array]:
        """The next state, each family's objective, and the norm of the averaged meta-gradient."""
        meta_step = int(state.meta_step) + 1
        unrolled = [
            unroll(state.weights, tasks, draw(state.weights, self._key(meta_step, index)))
            for index, (draw, unroll, tasks) in enumerate(zip(self._draws, self._unrolls, state.tasks, strict=True))
        ]
        state, norm = self._apply(state, unrolled)
        return state, [u.objective for u in unrolled], norm

    def validate(self, state: TrainerState) -> tuple[TrainerState, list[Validation]]:
        """The figures of the averaged weights, which become the best ones if they are."""
        figures = [validate(state.average) for validate in self._validations]
        # How fast a cell trains and where it ends count; a figure that is not a number never wins.
        score = jnp.mean(jnp.stack([f.objective + jnp.log(f.final * f.held_out) / 2 for f in figures]))
        if score < state.best_score:
            state = state._replace(best=state.average, best_score=score)
        return state, figures

    def cell(self, weights: Weights) -> AbstractCell:
        """The cell with these weights."""
        return eqx.combine(weights, self._static)

    def _key(self, meta_step: int, family: int) -> PRNGKeyArray:
        return jax.random.fold_in(jax.random.fold_in(self._seed, meta_step), family)

    def _problems(self, sections: Sequence[Any], augmentation: Augmentation) -> list[Problem]:
        return [Problem(build_family(s.network), self.template, augmentation, s.batch) for s in sections]

    def _draw(self, weights: Weights, key: PRNGKeyArray, problem: Problem) -> Task:
        keys = jax.random.split(key, self.config.inner.tasks)
        cell = self.cell(weights)
        return jax.vmap(lambda k: problem.draw(k, cell, self._data, self.config.inner.truncation))(keys)

    def _unroll(self, weights: Weights, tasks: Task, fresh: Task, problem: Problem) -> Unrolled:
        def objective(weights: Weights) -> tuple[Array, tuple[Task, Array]]:
            cell = self.cell(weights)
            trained, losses = jax.vmap(
                lambda task: problem.train(cell, task, self._data, self._judge, self.config.inner.truncation)
            )(tasks)
            return meta_objective(losses, tasks.initial_loss), (trained, losses)

        (value, (trained, losses)), gradient = jax.value_and_grad(objective, has_aux=True)(weights)
        done, diverged = finished(trained, losses)
        ended = done | diverged
        following = jax.tree.map(
            lambda new, old: jnp.where(ended.reshape(-1, *(1,) * (old.ndim - 1)), new, old), fresh, trained
        )
        return Unrolled(gradient, value, following, jnp.sum(diverged))

    def _validate(self, weights: Weights, problem: Problem) -> Validation:
        cell = self.cell(weights)
        steps = self.config.validation.steps

        def one(key: PRNGKeyArray) -> tuple[Array, Array, Array]:
            task = problem.draw(key, cell, self._data, steps)
            trained, losses = problem.train(cell, task, self._data, self._judge, steps)
            held_out = problem.loss(trained, _step.unpack(problem.layout, trained.param), *self._held_out)
            return losses, held_out, task.initial_loss

        # Keys of their own: no task of meta-training is ever drawn from them.
        keys = jax.random.split(jax.random.fold_in(self._seed, 2**31 - 1), self.config.validation.tasks)
        losses, held_out, initial = jax.vmap(one)(keys)
        return Validation(
            meta_objective(losses, initial), jnp.mean(losses[:, -max(steps // 10, 1) :, 0]), jnp.mean(held_out)
        )

    def _move(self, state: TrainerState, unrolled: list[Unrolled]) -> tuple[TrainerState, Array]:
        gradient = jax.tree.map(lambda *g: sum(g) / len(g), *(u.gradient for u in unrolled))
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(norm)
        updates, optimizer = self._optimizer.update(gradient, state.optimizer, state.weights)
        weights = optax.apply_updates(state.weights, updates)
        # The average of the first meta-steps is a plain mean, then a discounted one.
        kept = jnp.minimum(self.config.outer.average, (state.meta_step + 1) / (state.meta_step + 2))
        average = jax.tree.map(lambda a, w: kept * a + (1 - kept) * w, state.average, weights)

        def guarded(new: PyTree, old: PyTree) -> PyTree:
            return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

        missed = (~finite).astype(jnp.int32)
        moved = state._replace(
            weights=guarded(weights, state.weights),
            average=guarded(average, state.average),
            optimizer=guarded(optimizer, state.optimizer),
            tasks=tuple(u.tasks for u in unrolled),
            meta_step=state.meta_step + 1,
            resets=state.resets + sum(u.diverged for u in unrolled),
            skipped=state.skipped + missed,
            skipped_in_a_row=(state.skipped_in_a_row + missed) * missed,
        )
        return moved, norm


def _on_device(data: tuple[np.ndarray, np.ndarray]) -> Data:
    images, labels = data
    return jnp.asarray(images), jnp.asarray(labels)


def _compiled(function: Callable[..., Any], problem: Problem, *arguments: Any) -> Callable[..., Any]:
    return jax.jit(lambda *a: function(*a, problem)).lower(*arguments).compile()
