"""The interface of an inner loop, as an estimator of the meta-gradient sees it."""

import abc

import equinox as eqx
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

Weights = PyTree[Array]
"""The cell's weights that are meta-trained."""
State = PyTree[Array]
"""One inner training, and how far it is."""


class AbstractInnerLoop(eqx.Module):
    """Inner trainings of one family. Every method is about a single training; estimators vmap."""

    @abc.abstractmethod
    def draw(self, weights: Weights, key: PRNGKeyArray) -> State:
        """A fresh training."""

    @abc.abstractmethod
    def unroll(self, weights: Weights, state: State) -> tuple[State, Float[Array, ""]]:
        """The training one truncation later, and the mean loss over it. The same for the same arguments."""

    @abc.abstractmethod
    def ended(self, state: State) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        """Whether the training is at its horizon, and whether it has diverged. Either way it is replaced."""
