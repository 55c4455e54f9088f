"""Numbers of moderate size that describe a tensor as a whole to the network."""

import equinox as eqx
import jax.numpy as jnp

from ...step import inverse_root, ROLES
from .._records import Rows, Tensors
from ._direction import Signals
from ._numbers import relative_log, soft_clip, TINY
from ._prior import Sizes, Timing
from ._second_moment import MeanSquares
from ._types import InitialState, NamedRows, PerTensor

NUMBERS = 10
"""How many numbers `describe` gives."""
ADAPTATION = 0.05
"""The largest change of `adapted` in one step. It stays within ±1."""


def describe(tensors: Tensors, timing: Timing, sizes: Sizes, mean_squares: MeanSquares) -> list[PerTensor]:
    """Shape, time, gradient and parameters of a tensor."""
    shape, clock, moments = tensors.shape, tensors.clock, tensors.moments
    # (Σ|g|)² / (n Σg²): 1 where all gradients are of one size.
    evenness = jnp.square(moments["absolute"] * inverse_root(moments["square"] + TINY)) / shape["coordinates"]
    return [
        shape["matrix"],
        0.1 * jnp.log(shape["coordinates"]),
        0.2 * jnp.log(shape["aspect"]),
        (clock["total"] > 0).astype(mean_squares.now.dtype),
        timing.progress,
        timing.schedule,
        soft_clip(0.2 * jnp.log(clock["step"] + 1), 2.0),
        0.2 * jnp.log(evenness + 1e-6),
        0.25 * relative_log(mean_squares.now, mean_squares.total / mean_squares.weight),
        soft_clip(0.5 * jnp.log(sizes.rms / sizes.usual + 1e-3), 2.0),
    ]


def describe_role(tensors: Tensors) -> list[PerTensor]:
    """1 for the tensor's role and 0 for the others."""
    role = tensors.shape["role"]
    return [(role == place).astype(role.dtype) for place in range(len(ROLES))]


class Agreement(eqx.Module):
    """How well a tensor's gradient agrees with each head of its coordinates' memory."""

    heads: int = eqx.field(static=True)

    def encode(self, signals: Signals) -> NamedRows:
        """The terms of three inner products."""
        slope, heads = soft_clip(signals.slope), [soft_clip(head) for head in signals.heads]
        return {
            "slope_square": jnp.sum(slope * slope, axis=1),
            "head_square": jnp.stack([jnp.sum(head * head, axis=1) for head in heads], axis=1),
            "product": jnp.stack([jnp.sum(slope * head, axis=1) for head in heads], axis=1),
        }

    def describe(self, summary: Rows) -> list[PerTensor]:
        """Per head, the cosine and the steadiness of gradients: a mean of noise is small relative to its terms."""
        numbers = []
        for head in range(self.heads):
            steady = relative_log(summary["head_square"][:, head], summary["slope_square"])
            numbers += [self._cosine(summary, head), 0.25 * steady]
        return numbers

    def _cosine(self, summary: Rows, head: int) -> PerTensor:
        """The cosine between the gradient and the head's mean of earlier gradients, both over the same root.

        Its sign is opposite to that of the derivative of the loss by the size of the last step (Baydin et al. 2018,
        arXiv 1703.04782).
        """
        squares = summary["slope_square"] * summary["head_square"][:, head]
        return summary["product"][:, head] * inverse_root(squares + TINY)


class Adaptation(eqx.Module):
    """A second factor of the step within exp(±bound), which moves a little each step and persists."""

    bound: float = eqx.field(static=True)

    def initial_state(self) -> InitialState:
        """The tensor's state before the first step."""
        return {"adapted": jnp.zeros(())}

    def describe(self, state: Rows) -> list[PerTensor]:
        """The logarithm of the factor, over its bound."""
        return [state["adapted"]]

    def __call__(self, output: PerTensor, state: Rows) -> tuple[PerTensor, NamedRows]:
        """The logarithm of the factor, and the next state."""
        position = state["adapted"] + ADAPTATION * jnp.tanh(output)
        adapted = jnp.minimum(jnp.maximum(position, -1), 1)
        return self.bound * adapted, {"adapted": adapted}
