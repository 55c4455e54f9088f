"""The inner loop: the cell trains a task of a family, one truncation at a time."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from ...cell import AbstractCell
from ...step import Layout, reference
from ..tasks import AbstractFamily
from ._augmentation import Augmentation
from ._interface import AbstractInnerLoop, Weights
from ._objective import DIVERGED, meta_objective
from ._state import InnerState, Observation

INITIAL, RESTART = 2**32 - 1, 2**32 - 2
"""These take the place of a step's number in the keys of the initial loss and of the task after a restart."""


class _Horizon(NamedTuple):
    """When a training ends, and whether and when it restarts."""

    horizon: Int[Array, ""]
    restart: Int[Array, ""]
    restarts: Bool[Array, ""]
    is_known: Bool[Array, ""]
    """Whether the optimizer knows it."""

    @property
    def total_steps(self) -> Float[Array, ""]:
        """The number of steps that the optimizer knows of, or 0."""
        steps = jnp.where(self.restarts, self.restart, self.horizon)
        return jnp.where(self.is_known, steps, 0).astype(jnp.float32)


class InnerLoop(AbstractInnerLoop):
    """The trainings of one family. All arrays but the family's data are of one task."""

    family: AbstractFamily
    cell: AbstractCell
    """Of its weights only those are used that are not meta-trained."""
    longest: Float[Array, ""] | None
    """Replaces the augmentation's longest horizon. It is an array, so that one program takes every value of it."""
    layout: Layout = eqx.field(static=True)
    augmentation: Augmentation = eqx.field(static=True)
    truncation: int = eqx.field(static=True)
    """Inner steps of one unroll."""

    def __init__(self, family: AbstractFamily, cell: AbstractCell, augmentation: Augmentation, truncation: int):
        self.family = family
        self.cell = cell
        self.longest = None
        self.layout = reference.layout_of(cell, family.shapes, family.names)
        self.augmentation = augmentation
        self.truncation = truncation

    def with_longest(self, longest: Float[Array, ""]) -> "InnerLoop":
        """The same trainings, with another longest horizon."""
        return eqx.tree_at(lambda loop: loop.longest, self, longest, is_leaf=lambda leaf: leaf is None)

    def cell_with(self, weights: Weights) -> AbstractCell:
        """The cell, with these weights in the place of its own."""
        return eqx.combine(weights, self.cell)

    def network(self, state: InnerState) -> list[Float[Array, "..."]]:
        """The network's tensors."""
        return reference.unpack(self.layout, state.param * state.scales)

    def draw(self, weights: Weights, key: PRNGKeyArray) -> InnerState:
        a = self.augmentation
        keys = jax.random.split(key, 14)
        tensors = len(self.family.tensors)
        horizon = self._draw_horizon(keys[:4])
        scales = self._per_coordinate(
            _log_uniform(keys[4], a.scale) * _log_uniform(keys[5], a.tensor_scale, (tensors,))
        ) * _log_uniform(keys[6], a.coordinate_scale, self.layout.valid.shape)
        is_live = (jax.random.uniform(keys[7]) >= a.frozen) | (jax.random.uniform(keys[8], (tensors,)) >= 0.25)
        start = self._draw_parameters(keys[9])
        state = InnerState(
            key=jax.random.key_data(keys[10]),
            instance=self.family.draw(keys[11]),
            horizon=horizon.horizon,
            step=jnp.zeros((), jnp.int32),
            restart=horizon.restart,
            total_steps=horizon.total_steps,
            initial_loss=jnp.ones(()),
            diverged=jnp.zeros((), bool),
            scales=scales,
            gradient_scale=_log_uniform(keys[12], a.loss_scale) * is_live,
            gradient_noise=a.gradient_noise * jax.random.uniform(keys[13]),
            param=start / scales,
            optimizer=reference.init(self.cell_with(weights), self.layout),
        )
        return state._replace(initial_loss=self._initial_loss(state))

    def unroll(self, weights: Weights, state: InnerState) -> tuple[InnerState, Float[Array, ""]]:
        state = self.maybe_restart(weights, state)
        following, losses = self.advance(weights, state, self.truncation)
        middle = state.step + 0.5 * self.truncation
        weight = 1 + self.augmentation.late * (2 * middle / state.horizon - 1)
        return following, weight * meta_objective(losses, state.initial_loss)

    def ended(self, state: InnerState) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        return state.step >= state.horizon, state.diverged

    def maybe_restart(self, weights: Weights, state: InnerState) -> InnerState:
        """The same training, or at its restart one of another task with the same parameters."""
        if self.augmentation.restart == 0:
            return state
        other = state._replace(
            instance=self.family.draw(self._key(state, RESTART)),
            total_steps=jnp.where(state.total_steps > 0, state.horizon - state.step, 0).astype(jnp.float32),
            optimizer=reference.init(self.cell_with(weights), self.layout),
        )
        other = other._replace(initial_loss=jnp.maximum(self._initial_loss(other), state.initial_loss))
        return jax.tree.map(lambda new, old: jnp.where(state.step == state.restart, new, old), other, state)

    def advance(self, weights: Weights, state: InnerState, steps: int) -> tuple[InnerState, Float[Array, "steps two"]]:
        """The training some steps later, and the loss before each step: on its batch, and on one of the `meta` split.

        Differentiable in the weights, also through the inner gradients. Held constant, as in Andrychowicz et al. 2016,
        section 2.1, the gradients hide that later steps correct the noise of earlier ones, and the cell learns steps
        that are too small.
        """
        cell = self.cell_with(weights)

        def one(
            carry: tuple[Array, reference.OptimizerState], number: Array
        ) -> tuple[tuple[Array, reference.OptimizerState], Array]:
            param, optimizer = carry
            seen = self.observe(state, param, number)
            return self.step(cell, state, param, seen.grad, optimizer), jnp.stack([seen.loss, seen.meta_loss])

        numbers = state.step + jnp.arange(steps)
        (param, optimizer), losses = jax.lax.scan(one, (state.param, state.optimizer), numbers)
        diverged = state.diverged | ~jnp.all(losses[:, 0] < DIVERGED * state.initial_loss)
        return state._replace(param=param, optimizer=optimizer, step=state.step + steps, diverged=diverged), losses

    def observe(self, state: InnerState, param: Float[Array, "chunks length"], number: Int[Array, ""]) -> Observation:
        """What the step with that number sees at these parameters."""
        key = self._key(state, number)
        batch = self.family.batch(state.instance, key, "train")

        def loss_of(param: Array) -> Float[Array, ""]:
            return self.family.loss(reference.unpack(self.layout, param * state.scales), batch)

        loss, grad = jax.value_and_grad(loss_of)(param)
        meta_loss = self.family.loss(
            reference.unpack(self.layout, param * state.scales), self.family.batch(state.instance, key, "meta")
        )
        return Observation(loss, meta_loss, self._perturb(state, grad, key))

    def step(
        self,
        cell: AbstractCell,
        state: InnerState,
        param: Float[Array, "chunks length"],
        grad: Float[Array, "chunks length"],
        optimizer: reference.OptimizerState,
    ) -> tuple[Float[Array, "chunks length"], reference.OptimizerState]:
        """The cell's step."""

        # Recomputing a step in the backward pass is cheaper than keeping all of its intermediate values.
        @jax.checkpoint
        def step(cell: AbstractCell, param: Array, grad: Array, optimizer: reference.OptimizerState) -> Any:
            return reference.step(cell, self.layout, param, grad, optimizer, total_steps=state.total_steps)

        return step(cell, param, grad, optimizer)

    def _draw_horizon(self, keys: Key[Array, " keys"]) -> _Horizon:
        a = self.augmentation
        longest = a.longest if self.longest is None else self.longest
        middle, half = (a.shortest * longest) ** 0.5, (longest / a.shortest) ** 0.5
        truncations = jnp.round(middle * _log_uniform(keys[0], half) / self.truncation).astype(jnp.int32)
        horizon = self.truncation * jnp.maximum(truncations, 1)
        is_known = jax.random.uniform(keys[1]) >= a.unknown_horizon
        when = self.truncation * jnp.round(
            jax.random.uniform(keys[2], minval=0.1, maxval=0.6) * horizon / self.truncation
        ).astype(jnp.int32)
        restarts = (jax.random.uniform(keys[3]) < a.restart) & (when > 0)
        return _Horizon(horizon, jnp.where(restarts, when, horizon + 1), restarts, is_known)

    def _draw_parameters(self, key: PRNGKeyArray) -> Float[Array, "chunks length"]:
        deviations, means = (
            self._per_coordinate(jnp.array([getattr(tensor, name) for tensor in self.family.tensors]))
            * self.layout.valid
            for name in ("deviation", "mean")
        )
        # One draw for all tensors: XLA takes long to compile a draw for each.
        return deviations * jax.random.normal(key, self.layout.valid.shape) + means

    def _per_coordinate(self, per_tensor: Float[Array, " tensors"]) -> Float[Array, "chunks one"]:
        return (jnp.asarray(self.layout.owner) @ per_tensor)[:, None]

    def _key(self, state: InnerState, number: Int[Array, ""] | int) -> PRNGKeyArray:
        return jax.random.fold_in(jax.random.wrap_key_data(state.key), number)

    def _initial_loss(self, state: InnerState) -> Float[Array, ""]:
        batch = self.family.batch(state.instance, self._key(state, INITIAL), "train")
        # A loss that is zero at the start would make every step a divergence.
        return jnp.maximum(jnp.abs(self.family.loss(self.network(state), batch)), 1e-6)

    def _perturb(
        self, state: InnerState, grad: Float[Array, "chunks length"], key: PRNGKeyArray
    ) -> Float[Array, "chunks length"]:
        """The gradient with its noise and its scale."""
        if self.augmentation.gradient_noise > 0:
            owner = jnp.asarray(self.layout.owner)
            sizes = jnp.asarray(self.layout.shape_rows["coordinates"])
            rms = jnp.sqrt((jnp.sum(grad * grad, axis=1) @ owner) / sizes)
            noise = jax.random.normal(jax.random.fold_in(key, 1), grad.shape) * self.layout.valid
            grad = grad + state.gradient_noise * self._per_coordinate(jax.lax.stop_gradient(rms)) * noise
        return grad * self._per_coordinate(state.gradient_scale)


def _log_uniform(key: PRNGKeyArray, most: float | Array, shape: tuple[int, ...] = ()) -> Array:
    """Numbers in [1/most, most]."""
    return jnp.exp(jax.random.uniform(key, shape, minval=-jnp.log(most), maxval=jnp.log(most)))
