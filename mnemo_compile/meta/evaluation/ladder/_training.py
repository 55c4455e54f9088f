"""Training a rung with one optimizer: one compiled program for all its settings."""

import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pydantic
from jaxtyping import Array, Float, Int

from ...tasks import AbstractFamily, Params
from .._training import BINS, Runs
from .._tuning import plain
from ._optimizers import CLIP, Optimizer
from ._rungs import Rung
from ._start import start

SEGMENT = 10
"""Steps of one call of the program. Every horizon is a multiple."""
VALIDATION_EXAMPLES = 512
"""How many examples a validation loss is the mean of, at least."""


class Run(pydantic.BaseModel):
    """One training."""

    setting: float
    curve: list[float | None]
    """Training loss, in as many means over the steps as other curves have; null where it is not a number."""
    initial: float
    highest: float | None
    """Null where a loss is not finite."""
    validation_loss: float | None
    accuracy: float | None
    seconds: float
    """Without compilation."""


def as_runs(runs: Sequence[Run]) -> Runs:
    """Many as one record of arrays."""

    def column(name: str, missing: float = np.nan) -> np.ndarray:
        return np.array([missing if getattr(run, name) is None else getattr(run, name) for run in runs], np.float64)

    return Runs(
        curves=np.array([run.curve for run in runs], np.float64),
        initial=column("initial"),
        highest=column("highest", np.inf),
        validation_loss=column("validation_loss"),
        accuracy=column("accuracy"),
    )


class _Frozen(NamedTuple):
    inner: Any
    steps: Int[Array, ""]
    """Steps taken."""


def _unfreezing(inner: optax.GradientTransformationExtraArgs, place: int, step: Any) -> Any:
    """Before a step, one of the tensors has gradients of zero and does not move."""

    def init(params: Any) -> Any:
        return _Frozen(inner.init(params), jnp.zeros((), jnp.int32))

    def masked(tensors: Sequence[Array], taken: Array) -> list[Array]:
        return [jnp.where(taken >= step, tensor, 0) if at == place else tensor for at, tensor in enumerate(tensors)]

    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, Any]:
        updates, after = inner.update(masked(updates, state.steps), state.inner, params)
        return masked(updates, state.steps), _Frozen(after, state.steps + 1)

    return optax.GradientTransformationExtraArgs(init, update)


class _Carry(NamedTuple):
    params: Any
    state: Any
    step: Int[Array, ""]


class _Data(NamedTuple):
    """What a compiled program takes, so that it serves many trainings."""

    arrays: Any
    instance: Any
    key: Array
    weights: Any
    setting: Float[Array, ""]
    steps: Int[Array, ""]


class Trainer:
    """The trainings of one rung with one optimizer."""

    def __init__(self, rung: Rung, optimizer: Optimizer):
        self.rung, self.optimizer = rung, optimizer
        self.start = start(rung)

    def run(self, setting: float) -> Run:
        """One training."""
        data, losses = self._data(setting), []
        carry = self._fresh(data)
        advance, validate = self._compiled
        began = time.monotonic()
        for _ in range(self.rung.task.steps // SEGMENT):
            carry, some = advance(carry, data)
            losses.append(some)
        every = np.concatenate([np.asarray(some, np.float64) for some in losses])
        seconds = time.monotonic() - began
        validation, accuracy = validate(carry.params, data)
        return Run(
            setting=setting,
            curve=plain(every.reshape(BINS, -1).mean(axis=1)),
            initial=float(every[0]),
            highest=plain([every.max()])[0],
            validation_loss=plain([float(validation)])[0],
            accuracy=plain([float(accuracy)])[0],
            seconds=round(seconds, 2),
        )

    @functools.cached_property
    def _compiled(self) -> tuple[Any, Any]:
        data = self._data(1.0)
        carry = self._fresh(data)
        return (
            jax.jit(self._advance, donate_argnums=0).lower(carry, data).compile(),
            jax.jit(self._validate).lower(carry.params, data).compile(),
        )

    def _data(self, setting: float) -> _Data:
        at, steps = self.start, jnp.int32(self.rung.task.steps)
        return _Data(at.arrays, at.instance, at.key, self.optimizer.weights, jnp.float32(setting), steps)

    def _fresh(self, data: _Data) -> _Carry:
        params, step = self.start.params(), jnp.int32(0)
        return _Carry(params, self._made(data, step).init(params), step)

    def _made(self, data: _Data, step: Int[Array, ""]) -> optax.GradientTransformationExtraArgs:
        """The optimizer of a step. What it knows of the horizon can change on the way, and its state goes on."""
        options, steps, horizon = self.rung.options, data.steps, data.steps
        if self.optimizer.is_cell:
            horizon = {
                "given": steps,
                "unknown": jnp.zeros_like(steps),
                "extended": jnp.where(step < steps // 2, steps // 2, steps),
            }[options.horizon]
        made = self.optimizer.make(data.weights, self.start.family.tensors, data.setting, horizon)
        if self.optimizer.is_cell and options.clips:
            made = optax.chain(optax.clip_by_global_norm(CLIP), made)
        made = optax.with_extra_args_support(made)
        return made if options.unfreezes is None else _unfreezing(made, options.unfreezes, steps // 2)

    def _family(self, data: _Data) -> AbstractFamily:
        return eqx.combine(data.arrays, self.start.family)

    def _advance(self, carry: _Carry, data: _Data) -> tuple[_Carry, Float[Array, " segment"]]:
        """Some steps, and the loss before each."""
        family = self._family(data)

        def one(carry: _Carry, _: None) -> tuple[_Carry, Array]:
            batch = family.batch(data.instance, jax.random.fold_in(data.key, carry.step), "train")
            loss, grads = jax.value_and_grad(family.loss)(carry.params, batch)
            updates, state = self._made(data, carry.step).update(grads, carry.state, carry.params)
            return _Carry(jax.tree.map(jnp.add, carry.params, updates), state, carry.step + 1), loss

        return jax.lax.scan(one, carry, None, SEGMENT)

    def _validate(self, params: Params, data: _Data) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Mean loss and accuracy on the validation split."""
        family = self._family(data)

        def one(key: Array) -> tuple[Array, Array]:
            batch = family.batch(data.instance, key, "validation")
            return family.loss(params, batch), family.accuracy(params, batch)

        batches = -(-VALIDATION_EXAMPLES // self.rung.batch)
        losses, accuracies = jax.lax.map(one, jax.random.split(jax.random.fold_in(data.key, data.steps), batches))
        return losses.mean(), accuracies.mean()
