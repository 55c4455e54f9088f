"""One meta-step: an estimate from every family, the mean of their meta-gradients, and the cell's weights moved."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from mnemo_compile.cell import AbstractCell

from ._config import RunConfig
from ._estimators import Estimate, Weights
from ._unroll import Augmentation, meta_objective, Problem
from .tasks import FamilyConfig


class TrainerState(NamedTuple):
    """Everything that the next meta-step depends on."""

    weights: Weights
    average: Weights
    """Running average of the weights: what is validated and frozen."""
    best: Weights
    """The average with the lowest validation score so far."""
    best_score: Float[Array, ""]
    optimizer: optax.OptState
    carried: tuple[Any, ...]
    """What the estimator carries of each family."""
    meta_step: Int[Array, ""]
    resets: Int[Array, ""]
    """Tasks ended because they diverged."""
    skipped: Int[Array, ""]
    """Meta-steps whose meta-gradient was not finite and that changed no weight."""
    skipped_in_a_row: Int[Array, ""]


class Validation(NamedTuple):
    """What one validation family gives: means over its tasks."""

    objective: Float[Array, ""]
    """The meta-objective over the whole horizon."""
    final: Float[Array, ""]
    """Training loss over the last tenth of the horizon."""
    held_out: Float[Array, ""]
    """Loss on examples that no task trains on, at the horizon."""


HELD_OUT = 8
"""Batches that the loss on held-out examples is taken over."""


class MetaStep:
    """The compiled functions of a run."""

    def __init__(self, config: RunConfig):
        self.config = config
        self.template = config.cell.build()
        weights, self._static = eqx.partition(self.template, eqx.is_array)
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(config.outer.clip), optax.adam(config.outer.learning_rate)
        )
        self._estimator = config.estimator.build(config.inner.tasks)
        plain = Augmentation(config.validation.steps, config.validation.steps)
        self.problems = self._problems(config.families, config.inner.augmentation)
        self.validation_problems = self._problems(config.validation.families, plain)
        self._seed = jax.random.key(config.seed)
        key = jax.ShapeDtypeStruct(self._seed.shape, self._seed.dtype)
        self._starts = [_compiled(self._estimator.init, p, weights, key) for p in self.problems]
        carried = [jax.eval_shape(lambda w, k, p=p: self._estimator.init(p, w, k), weights, key) for p in self.problems]
        self._estimates = [
            _compiled(self._estimator.step, p, weights, c, key) for p, c in zip(self.problems, carried, strict=True)
        ]
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
            carried=tuple(start(weights, self._key(0, index)) for index, start in enumerate(self._starts)),
            meta_step=jnp.zeros((), jnp.int32),
            resets=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            skipped_in_a_row=jnp.zeros((), jnp.int32),
        )

    def step(self, state: TrainerState) -> tuple[TrainerState, list[Array], Array]:
        """The next state, each family's objective, and the norm of the averaged meta-gradient."""
        meta_step = int(state.meta_step) + 1
        results = [
            estimate(state.weights, carried, self._key(meta_step, index))
            for index, (estimate, carried) in enumerate(zip(self._estimates, state.carried, strict=True))
        ]
        estimates = [estimate for estimate, _ in results]
        state = state._replace(carried=tuple(carried for _, carried in results))
        state, norm = self._apply(state, estimates)
        return state, [estimate.objective for estimate in estimates], norm

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

    def _problems(self, families: Sequence[FamilyConfig], augmentation: Augmentation) -> list[Problem]:
        truncation = self.config.inner.truncation
        return [Problem(family.build(), self.template, augmentation, truncation) for family in families]

    def _validate(self, problem: Problem, weights: Weights) -> Validation:
        steps = self.config.validation.steps

        def one(key: PRNGKeyArray) -> tuple[Array, Array, Array]:
            task, losses = problem.advance(weights, problem.draw(weights, key), steps)
            network, family = problem.network(task), problem.family
            batches = [family.batch(task.instance, jax.random.fold_in(key, i), "held_out") for i in range(HELD_OUT)]
            held_out = jnp.mean(jnp.stack([family.loss(network, batch) for batch in batches]))
            return losses, held_out, meta_objective(losses, task.initial_loss)

        # Keys of their own: no task of meta-training is ever drawn from them.
        keys = jax.random.split(jax.random.fold_in(self._seed, 2**31 - 1), self.config.validation.tasks)
        losses, held_out, objectives = jax.vmap(one)(keys)
        return Validation(jnp.mean(objectives), jnp.mean(losses[:, -max(steps // 10, 1) :, 0]), jnp.mean(held_out))

    def _move(self, state: TrainerState, estimates: list[Estimate]) -> tuple[TrainerState, Array]:
        gradient = jax.tree.map(lambda *g: sum(g) / len(g), *(e.gradient for e in estimates))
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
            meta_step=state.meta_step + 1,
            resets=state.resets + sum(e.diverged for e in estimates),
            skipped=state.skipped + missed,
            skipped_in_a_row=(state.skipped_in_a_row + missed) * missed,
        )
        return moved, norm


def _compiled(function: Callable[..., Any], problem: Problem, *arguments: Any) -> Callable[..., Any]:
    return jax.jit(lambda *a: function(problem, *a)).lower(*arguments).compile()
