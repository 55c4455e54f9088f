"""The interface of an estimator of the meta-gradient: how a mean of inner losses changes with the cell's weights.

Every estimator looks at inner trainings through an `AbstractInnerLoop` and keeps many of them going at once. A whole
inner training is a sequence of truncations; estimators differ in how far beyond a truncation they see.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ..inner_loop import AbstractInnerLoop, State, Weights


class Estimate(NamedTuple):
    """What one meta-step learns of a family."""

    gradient: Weights
    objective: Float[Array, ""]
    """The mean loss over the trainings and the truncation."""
    diverged: Int[Array, ""]
    """How many trainings were replaced because they diverged."""


class AbstractEstimator(eqx.Module):
    """A way to the meta-gradient."""

    tasks: eqx.AbstractVar[int]
    """How many inner trainings run at once."""

    @abc.abstractmethod
    def init(self, loop: AbstractInnerLoop, weights: Weights, key: PRNGKeyArray) -> Any:
        """What is carried from meta-step to meta-step."""

    @abc.abstractmethod
    def step(self, loop: AbstractInnerLoop, weights: Weights, carry: Any, key: PRNGKeyArray) -> tuple[Estimate, Any]:
        """An estimate, and what is carried on."""


def draw(loop: AbstractInnerLoop, weights: Weights, key: PRNGKeyArray, count: int) -> State:
    """This many fresh trainings, side by side."""
    return jax.vmap(lambda k: loop.draw(weights, k))(jax.random.split(key, count))


def select(which: Bool[Array, " tasks"], new: PyTree, old: PyTree) -> PyTree:
    """The new trainings where `which` is true, the old ones elsewhere."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(which.reshape(-1, *(1,) * (b.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
