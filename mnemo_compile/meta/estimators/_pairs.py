"""What evolution strategies share: pairs of trainings under weights θ + ε and θ − ε."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..inner_loop import AbstractInnerLoop, State, Weights


class Pairs(NamedTuple):
    """Pairs one truncation later."""

    plus: State
    minus: State
    differences: Float[Array, " pairs"]
    """Of their losses."""
    means: Float[Array, " pairs"]


class Ended(NamedTuple):
    """Of each pair, whether either training is at its horizon, and whether either has diverged."""

    done: Bool[Array, " pairs"]
    diverged: Bool[Array, " pairs"]


def perturbations(weights: Weights, key: PRNGKeyArray, pairs: int, deviation: float) -> Weights:
    """ε for each pair."""
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        deviation * jax.random.normal(k, (pairs, *leaf.shape), leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def unroll(loop: AbstractInnerLoop, weights: Weights, noise: Weights, plus: State, minus: State) -> Pairs:
    """Both trainings of each pair one truncation later."""
    # In one program: trainings of both signs lie side by side.
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), plus, minus)
    moved = jax.tree.map(lambda w, e: jnp.concatenate([w + e, w - e]), weights, noise)
    both, losses = jax.vmap(loop.unroll)(moved, both)
    pairs = losses.shape[0] // 2
    plus, minus = (jax.tree.map(lambda x, rows=rows: x[rows], both) for rows in (slice(pairs), slice(pairs, None)))
    return Pairs(plus, minus, losses[:pairs] - losses[pairs:], (losses[:pairs] + losses[pairs:]) / 2)


def gradient(perturbation: Weights, differences: Float[Array, " pairs"], deviation: float) -> Weights:
    """Σ ξ (L⁺ − L⁻) / 2σ², the mean over pairs."""
    return jax.tree.map(
        lambda xi: jnp.tensordot(differences, xi, axes=1) / (2 * deviation**2 * differences.shape[0]), perturbation
    )


def ended(loop: AbstractInnerLoop, plus: State, minus: State) -> Ended:
    """Which pairs are at an end."""
    (done_plus, lost_plus), (done_minus, lost_minus) = (jax.vmap(loop.ended)(each) for each in (plus, minus))
    return Ended(done_plus | done_minus, lost_plus | lost_minus)
