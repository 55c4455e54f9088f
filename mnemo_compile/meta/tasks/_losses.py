"""Losses by name: the mean over a batch of how far outputs are from targets."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .data import Batch, TargetKind

Loss = Literal["cross-entropy", "focal", "hinge", "squared", "huber", "absolute"]
Outputs = Float[Array, "batch ..."]


def squared(outputs: Outputs, batch: Batch) -> Float[Array, ""]:
    """Half the squared error."""
    return 0.5 * jnp.mean(jnp.square(outputs - batch.targets))


def huber(outputs: Outputs, batch: Batch) -> Float[Array, ""]:
    """Half the squared error up to 1, linear beyond."""
    size = jnp.abs(outputs - batch.targets)
    return jnp.mean(jnp.where(size < 1, 0.5 * size * size, size - 0.5))


def absolute(outputs: Outputs, batch: Batch) -> Float[Array, ""]:
    """The absolute error."""
    return jnp.mean(jnp.abs(outputs - batch.targets))


def cross_entropy(outputs: Outputs, batch: Batch) -> Float[Array, ""]:
    """The negative log-likelihood of the targets under the softmax of the outputs."""
    return _weighted(_surprise(outputs, batch), batch)


def focal(outputs: Outputs, batch: Batch) -> Float[Array, ""]:
    """Lin et al. 2017 (arXiv 1708.02002), equation 4, with γ = 2."""
    surprise = _surprise(outputs, batch)
    return _weighted(jnp.square(1 - jnp.exp(-surprise)) * surprise, batch)


def hinge(outputs: Outputs, batch: Batch) -> Float[Array, ""]:
    """Crammer and Singer 2001: how far the target's score is from 1 above the highest other score."""
    target = _one_hot(outputs, batch)
    score = jnp.sum(target * outputs, axis=-1)
    return _weighted(jnp.maximum(1 + jnp.max(outputs - 1e9 * target, axis=-1) - score, 0), batch)


LOSSES: dict[TargetKind, dict[Loss, Callable[[Outputs, Batch], Float[Array, ""]]]] = {
    "classes": {"cross-entropy": cross_entropy, "focal": focal, "hinge": hinge},
    "numbers": {"squared": squared, "huber": huber, "absolute": absolute},
}
"""The losses that fit each kind of target; the first is the default."""


def _one_hot(outputs: Outputs, batch: Batch) -> Outputs:
    # A sum over classes is faster than a lookup when many tasks run side by side.
    return jax.nn.one_hot(batch.targets, outputs.shape[-1], dtype=outputs.dtype)


def _surprise(outputs: Outputs, batch: Batch) -> Float[Array, "batch ..."]:
    return -jnp.sum(_one_hot(outputs, batch) * jax.nn.log_softmax(outputs), axis=-1)


def _weighted(losses: Float[Array, "batch ..."], batch: Batch) -> Float[Array, ""]:
    return jnp.mean(losses if batch.weight is None else losses * batch.weight)
