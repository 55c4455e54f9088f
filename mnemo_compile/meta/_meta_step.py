"""One meta-step: an estimate from every family, and a step of the meta-optimizer along their mean."""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..cell import AbstractCell
from ._compilation import compile_in
from ._config import RunConfig
from ._sharding import everywhere, over_tasks, put, ShardedLoop, task_mesh
from ._state import TrainerState
from ._validation import validate, Validation, validation_score
from .estimators import AbstractEstimator, Estimate
from .inner_loop import AbstractInnerLoop, Augmentation, InnerLoop, Weights
from .tasks import FamilyConfig

LEAST_NORM = 1e-12
"""Added to the norm that a family's meta-gradient is divided by."""


class MetaStep:
    """The compiled functions of a run. Tasks lie side by side on the mesh; weights are whole on each of its devices."""

    def __init__(self, config: RunConfig, cell: AbstractCell | None = None):
        """Compiles the run that starts from a cell, by default from a fresh one."""
        self.config = config
        self._start = config.cell.build() if cell is None else cell
        self._weights, self._constants = eqx.partition(self._start, config.outer.is_trained(self._start))
        weights = self._weights
        self._optimizer = config.outer.optimizer
        estimator = config.estimator.build(config.inner)
        plain = Augmentation(config.validation.steps, config.validation.steps)
        self.loops = self._loops(config.families, config.inner.augmentation)
        self.validation_loops = self._loops(config.validation.families, plain)
        drawn_at_once = config.inner.tasks // 2 if config.estimator.in_pairs else config.inner.tasks
        self.mesh = task_mesh(drawn_at_once)
        self._side_by_side = over_tasks(self.mesh, drawn_at_once)
        self._whole = everywhere(self._side_by_side)
        over_validation = over_tasks(self.mesh, config.validation.tasks)
        starts, estimates, validations = [], [], []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for index, loop in enumerate(self.loops):
                start, estimate = self._family(estimator, loop, index)
                carry = jax.eval_shape(start, weights)
                meta_step = jax.ShapeDtypeStruct((), jnp.int32)
                starts.append(compile_in(pool, start, (self._whole,), self._side_by_side, weights))
                inputs, outputs = (self._whole, self._side_by_side, self._whole), (self._whole, self._side_by_side)
                estimates.append(compile_in(pool, estimate, inputs, outputs, weights, carry, meta_step))
            for loop in self.validation_loops:
                function = functools.partial(self._validate, loop, over_validation)
                validations.append(compile_in(pool, function, (everywhere(over_validation),), None, weights))
            self._starts, self._estimates, self._validations = (
                [program.result() for program in programs] for programs in (starts, estimates, validations)
            )
        self._apply = jax.jit(self._move, out_shardings=self._whole)
        self._choose = jax.jit(self._better, out_shardings=self._whole)

    def init(self) -> TrainerState:
        """The state before the first meta-step."""
        weights = self._weights
        state = TrainerState(
            weights=weights,
            average=weights,
            best=weights,
            best_score=jnp.array(jnp.inf),
            optimizer=self._optimizer.init(weights),
            carries=(),
            meta_step=jnp.zeros((), jnp.int32),
            resets=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            skipped_in_a_row=jnp.zeros((), jnp.int32),
        )
        state = self.placed(jax.tree.map(np.asarray, state))
        return state._replace(carries=tuple(start(state.weights) for start in self._starts))

    def placed(self, state: TrainerState) -> TrainerState:
        """A state of whole arrays on the host, the same in every process, put onto the devices."""
        rest = put(state._replace(carries=()), self._whole)
        return rest._replace(carries=put(state.carries, self._side_by_side))

    def step(self, state: TrainerState) -> tuple[TrainerState, list[Array], Array]:
        """The next state, the objective of each family that takes part, and the norm of the mean meta-gradient."""
        curriculum, taking_part = self.config.curriculum, len(self.loops)
        if curriculum is not None:
            taking_part = curriculum.families_at(int(state.meta_step), taking_part)
        results = [
            estimate(state.weights, carry, state.meta_step)
            for estimate, carry in zip(self._estimates[:taking_part], state.carries[:taking_part], strict=True)
        ]
        estimates = [estimate for estimate, _ in results]
        moved, norm = self._apply(state._replace(carries=()), estimates)
        carries = (*(carry for _, carry in results), *state.carries[taking_part:])
        return moved._replace(carries=carries), [estimate.objective for estimate in estimates], norm

    def validate(self, state: TrainerState) -> tuple[TrainerState, list[Validation]]:
        """The figures of the averaged weights, which become the best ones if their score is the lowest."""
        figures = [validate(state.average) for validate in self._validations]
        best, score = self._choose(state.average, state.best, state.best_score, figures)
        return state._replace(best=best, best_score=score), figures

    def cell(self, weights: Weights) -> AbstractCell:
        """The cell with these weights, and with those that are not meta-trained."""
        return eqx.combine(weights, self._constants)

    def _family(
        self, estimator: AbstractEstimator, loop: InnerLoop, index: int
    ) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Two functions of a family: the estimator's first carry, and an estimate with the next carry."""

        def key(meta_step: Array | int) -> PRNGKeyArray:
            return jax.random.fold_in(jax.random.fold_in(self._seed(), meta_step), index)

        def loop_at(meta_step: Array) -> AbstractInnerLoop:
            curriculum, last = self.config.curriculum, self.config.inner.longest
            longest = None if curriculum is None else curriculum.longest_at(meta_step, last)
            limited = loop if longest is None else loop.with_longest(longest)
            return ShardedLoop(self.config.estimator.loop(limited), self._side_by_side)

        def start(weights: Weights) -> Any:
            return estimator.init(loop_at(jnp.zeros((), jnp.int32)), weights, key(0))

        def estimate(weights: Weights, carry: Any, meta_step: Array) -> tuple[Estimate, Any]:
            return estimator.step(loop_at(meta_step), weights, carry, key(meta_step + 1))

        return start, estimate

    def _seed(self) -> PRNGKeyArray:
        return jax.random.key(self.config.seed)

    def _loops(self, families: Sequence[FamilyConfig], augmentation: Augmentation) -> list[InnerLoop]:
        truncation = self.config.inner.truncation
        return [InnerLoop(family.build(), self._start, augmentation, truncation) for family in families]

    def _validate(self, loop: InnerLoop, sharding: Any, weights: Weights) -> Validation:
        # A key of its own: meta-training never draws a task from it.
        key = jax.random.fold_in(self._seed(), 2**31 - 1)
        return validate(loop, weights, key, self.config.validation.tasks, self.config.validation.steps, sharding)

    def _better(
        self, average: Weights, best: Weights, best_score: Array, figures: list[Validation]
    ) -> tuple[Weights, Array]:
        # A score that is not a number never wins.
        score = validation_score(figures)
        wins = score < best_score
        return jax.tree.map(lambda a, b: jnp.where(wins, a, b), (average, score), (best, best_score))

    def _move(self, state: TrainerState, estimates: list[Estimate]) -> tuple[TrainerState, Array]:
        gradients = [e.gradient for e in estimates]
        if self.config.outer.equal_families:
            gradients = [optax.tree.scale(1 / (optax.tree.norm(g) + LEAST_NORM), g) for g in gradients]
        gradient = jax.tree.map(lambda *g: sum(g) / len(g), *gradients)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(norm)
        updates, optimizer = self._optimizer.update(gradient, state.optimizer, state.weights)
        weights = optax.apply_updates(state.weights, updates)
        # The average over the first meta-steps is a plain mean, and later a discounted one.
        discount = jnp.minimum(self.config.outer.average, (state.meta_step + 1) / (state.meta_step + 2))
        average = jax.tree.map(lambda a, w: discount * a + (1 - discount) * w, state.average, weights)

        def if_finite(new: PyTree, old: PyTree) -> PyTree:
            return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

        missed = (~finite).astype(jnp.int32)
        moved = state._replace(
            weights=if_finite(weights, state.weights),
            average=if_finite(average, state.average),
            optimizer=if_finite(optimizer, state.optimizer),
            meta_step=state.meta_step + 1,
            resets=state.resets + sum(e.diverged for e in estimates),
            skipped=state.skipped + missed,
            skipped_in_a_row=(state.skipped_in_a_row + missed) * missed,
        )
        return moved, norm
