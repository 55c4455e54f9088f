"""One meta-step: an estimate from every family, the mean of their meta-gradients, and the cell's weights moved."""

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ..cell import AbstractCell
from ..errors import MnemoError

from ._config import RunConfig
from ._estimators import AbstractEstimator, AbstractUnroll, Estimate, Weights
from ._sharding import everywhere, over_tasks, put, Spread, task_mesh
from ._unroll import Augmentation, meta_objective, Problem, Task
from .tasks import FamilyConfig


class TrainerState(NamedTuple):
    """Everything that the next meta-step depends on."""

    weights: Weights
    """Those that are meta-trained."""
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


LEAST_NORM = 1e-12
"""Added to the norm that a family's meta-gradient is divided by."""
HELD_OUT = 8
"""Batches that the loss on held-out examples is taken over."""


def validation_score(figures: Sequence[Validation]) -> Float[Array, ""]:
    """What the best weights have the lowest of, the mean over families: how fast a cell trains and where it ends.

    Of a family: the meta-objective, which is a mean log-loss, plus half the logarithms of the final training loss and
    of the loss on held-out examples.
    """
    return jnp.mean(jnp.stack([f.objective + jnp.log(f.final * f.held_out) / 2 for f in figures]))


class MetaStep:
    """The compiled functions of a run. Tasks lie side by side on the mesh; weights are whole on each of its devices."""

    def __init__(self, config: RunConfig, cell: AbstractCell | None = None):
        """Of a run that starts from a cell, or from a fresh one."""
        self.config = config
        self._start = config.cell.build() if cell is None else cell
        self._weights, self._kept = eqx.partition(self._start, config.outer.moved(self._start))
        weights = self._weights
        self._optimizer = config.outer.optimizer
        estimator = config.estimator.build(config.inner)
        plain = Augmentation(config.validation.steps, config.validation.steps)
        self.problems = self._problems(config.families, config.inner.augmentation)
        self.validation_problems = self._problems(config.validation.families, plain)
        drawn_at_once = config.inner.tasks // 2 if config.estimator.in_pairs else config.inner.tasks
        self.mesh = task_mesh(drawn_at_once)
        self._side_by_side = over_tasks(self.mesh, drawn_at_once)
        self._whole = everywhere(self._side_by_side)
        judged = over_tasks(self.mesh, config.validation.tasks)
        starts, estimates, validations = [], [], []
        # XLA takes a core a program, and a family's takes it half a minute: while one is compiled the next is traced.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for index, problem in enumerate(self.problems):
                start, estimate = self._family(estimator, problem, index)
                carried = jax.eval_shape(start, weights)
                meta_step = jax.ShapeDtypeStruct((), jnp.int32)
                starts.append(_compiled(pool, start, (self._whole,), self._side_by_side, weights))
                inputs, outputs = (self._whole, self._side_by_side, self._whole), (self._whole, self._side_by_side)
                estimates.append(_compiled(pool, estimate, inputs, outputs, weights, carried, meta_step))
            for problem in self.validation_problems:
                validate = functools.partial(self._validate, problem, judged)
                validations.append(_compiled(pool, validate, (everywhere(judged),), None, weights))
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
            carried=(),
            meta_step=jnp.zeros((), jnp.int32),
            resets=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            skipped_in_a_row=jnp.zeros((), jnp.int32),
        )
        state = self.placed(jax.tree.map(np.asarray, state))
        return state._replace(carried=tuple(start(state.weights) for start in self._starts))

    def placed(self, state: TrainerState) -> TrainerState:
        """A state of whole arrays on the host, the same in every process, on the devices."""
        rest = put(state._replace(carried=()), self._whole)
        return rest._replace(carried=put(state.carried, self._side_by_side))

    def step(self, state: TrainerState) -> tuple[TrainerState, list[Array], Array]:
        """The next state, the objective of each family that takes part, and the norm of the averaged meta-gradient."""
        curriculum, taking_part = self.config.curriculum, len(self.problems)
        if curriculum is not None:
            taking_part = curriculum.families_at(int(state.meta_step), taking_part)
        results = [
            estimate(state.weights, carried, state.meta_step)
            for estimate, carried in zip(self._estimates[:taking_part], state.carried[:taking_part], strict=True)
        ]
        estimates = [estimate for estimate, _ in results]
        moved, norm = self._apply(state._replace(carried=()), estimates)
        carried = (*(carried for _, carried in results), *state.carried[taking_part:])
        return moved._replace(carried=carried), [estimate.objective for estimate in estimates], norm

    def validate(self, state: TrainerState) -> tuple[TrainerState, list[Validation]]:
        """The figures of the averaged weights, which become the best ones if they are."""
        figures = [validate(state.average) for validate in self._validations]
        best, score = self._choose(state.average, state.best, state.best_score, figures)
        return state._replace(best=best, best_score=score), figures

    def cell(self, weights: Weights) -> AbstractCell:
        """The cell with these weights, and with what is not meta-trained."""
        return eqx.combine(weights, self._kept)

    def _family(
        self, estimator: AbstractEstimator, problem: Problem, index: int
    ) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """What an estimator carries of a family at first, and an estimate and what it carries then."""

        def key(meta_step: Array | int) -> PRNGKeyArray:
            return jax.random.fold_in(jax.random.fold_in(self._seed(), meta_step), index)

        def unroll(meta_step: Array) -> AbstractUnroll:
            curriculum, last = self.config.curriculum, self.config.inner.longest
            longest = None if curriculum is None else curriculum.longest_at(meta_step, last)
            limited = problem if longest is None else problem.limited(longest)
            return Spread(self.config.estimator.unroll(limited), self._side_by_side)

        def start(weights: Weights) -> Any:
            return estimator.init(unroll(jnp.zeros((), jnp.int32)), weights, key(0))

        def estimate(weights: Weights, carried: Any, meta_step: Array) -> tuple[Estimate, Any]:
            return estimator.step(unroll(meta_step), weights, carried, key(meta_step + 1))

        return start, estimate

    def _seed(self) -> PRNGKeyArray:
        return jax.random.key(self.config.seed)

    def _problems(self, families: Sequence[FamilyConfig], augmentation: Augmentation) -> list[Problem]:
        truncation = self.config.inner.truncation
        return [Problem(family.build(), self._start, augmentation, truncation) for family in families]

    def _validate(self, problem: Problem, sharding: NamedSharding, weights: Weights) -> Validation:
        steps = self.config.validation.steps

        def one(key: PRNGKeyArray, task: Task) -> tuple[Array, Array, Array]:
            task, losses = problem.advance(weights, task, steps)
            network, family = problem.network(task), problem.family
            batches = [family.batch(task.instance, jax.random.fold_in(key, i), "held_out") for i in range(HELD_OUT)]
            held_out = jnp.mean(jnp.stack([family.loss(network, batch) for batch in batches]))
            return losses, held_out, meta_objective(losses, task.initial_loss)

        # Keys of their own: no task of meta-training is ever drawn from them.
        keys = jax.random.split(jax.random.fold_in(self._seed(), 2**31 - 1), self.config.validation.tasks)
        tasks = jax.vmap(lambda key: Spread(problem, sharding).draw(weights, key))(keys)
        losses, held_out, objectives = jax.vmap(one)(keys, tasks)
        return Validation(jnp.mean(objectives), jnp.mean(losses[:, -max(steps // 10, 1) :, 0]), jnp.mean(held_out))

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


def _compiled(
    pool: ThreadPoolExecutor, function: Callable[..., Any], inputs: Any, outputs: Any, *arguments: Any
) -> Future[Callable[..., Any]]:
    """The program of a function whose arguments and results lie on the devices like this."""
    lowered = jax.jit(function, in_shardings=inputs, out_shardings=outputs).lower(*arguments)

    def program() -> Callable[..., Any]:
        _check_room_for_maps()
        return lowered.compile()

    return pool.submit(program)


MAPS, MOST_MAPS = pathlib.Path("/proc/self/maps"), pathlib.Path("/proc/sys/vm/max_map_count")


def _check_room_for_maps() -> None:
    """Raises `MnemoError` where Linux has few memory maps left for this process.

    XLA takes a few thousand for a family on a CPU, and LLVM aborts where there are none.
    """
    try:
        with MAPS.open("rb") as maps:
            taken = sum(1 for _ in maps)
        most = int(MOST_MAPS.read_text())
    except OSError:
        # Another system, or one that does not tell.
        return
    if taken > 0.9 * most:
        raise MnemoError(
            f"compiled families take {taken:,} of the {most:,} memory maps that Linux allows a process; "
            f"allow more with sudo sysctl -w vm.max_map_count=262144, or meta-train on fewer families"
        )
