"""Estimates of the meta-gradient: how a mean of inner losses changes with the cell's weights.

Every estimator looks at inner problems through an [`AbstractUnroll`][] and keeps many of them going at once. A whole
inner training is a sequence of truncations; the estimators differ in how far beyond the truncation they see.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

Weights = PyTree[Array]
Inner = PyTree[Array]
"""One inner problem and how far its training is."""


class AbstractUnroll(eqx.Module):
    """Inner problems of one family, as an estimator sees them. All of it is of one problem; estimators vmap."""

    @abc.abstractmethod
    def draw(self, weights: Weights, key: PRNGKeyArray) -> Inner:
        """A fresh problem."""

    @abc.abstractmethod
    def run(self, weights: Weights, inner: Inner) -> tuple[Inner, Float[Array, ""]]:
        """The problem a truncation on, and the mean loss meanwhile. The same for the same arguments."""

    @abc.abstractmethod
    def ended(self, inner: Inner) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        """Whether the problem is to be replaced: it has come to its end, and it has diverged."""


class Estimate(NamedTuple):
    """What one meta-step learns of a family."""

    gradient: Weights
    objective: Float[Array, ""]
    """The mean loss over the problems and the truncation."""
    diverged: Int[Array, ""]
    """Problems that were replaced because they diverged."""


class AbstractEstimator(eqx.Module):
    """A way to the meta-gradient."""

    tasks: eqx.AbstractVar[int]
    """Inner problems at once."""

    @abc.abstractmethod
    def init(self, unroll: AbstractUnroll, weights: Weights, key: PRNGKeyArray) -> Any:
        """What is carried from meta-step to meta-step."""

    @abc.abstractmethod
    def step(self, unroll: AbstractUnroll, weights: Weights, carried: Any, key: PRNGKeyArray) -> tuple[Estimate, Any]:
        """An estimate, and what is carried on."""


def draw(unroll: AbstractUnroll, weights: Weights, key: PRNGKeyArray, count: int) -> Inner:
    """So many fresh problems, side by side."""
    return jax.vmap(lambda k: unroll.draw(weights, k))(jax.random.split(key, count))


def replaced(which: Bool[Array, " tasks"], new: PyTree, old: PyTree) -> PyTree:
    """The new ones where it is so."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(which.reshape(-1, *(1,) * (b.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)


class TruncatedBackpropagation(AbstractEstimator):
    """The derivative through one truncation, with what the weights did before it taken as given.

    Its variance is small, and it is biased against what pays off after the truncation (Wu et al. 2018, arXiv
    1803.02021).
    """

    tasks: int = eqx.field(static=True, default=8)

    def init(self, unroll: AbstractUnroll, weights: Weights, key: PRNGKeyArray) -> Any:
        return draw(unroll, weights, key, self.tasks)

    def step(self, unroll: AbstractUnroll, weights: Weights, carried: Any, key: PRNGKeyArray) -> tuple[Estimate, Any]:
        def objective(weights: Weights) -> tuple[Array, Inner]:
            following, losses = jax.vmap(lambda inner: unroll.run(weights, inner))(carried)
            return jnp.mean(losses), following

        (value, following), gradient = jax.value_and_grad(objective, has_aux=True)(weights)
        done, diverged = jax.vmap(unroll.ended)(following)
        fresh = draw(unroll, weights, key, self.tasks)
        return Estimate(gradient, value, jnp.sum(diverged)), replaced(done | diverged, fresh, following)


class Particles(NamedTuple):
    """Pairs of inner problems that were the same when they were drawn."""

    plus: Inner
    minus: Inner
    perturbation: Weights
    """Σ ε over the truncations since then, with a leading axis of pairs."""


class PersistentEvolution(AbstractEstimator):
    """Persistent evolution strategies (Vicol et al. 2021, arXiv 2112.13835, algorithm 1), antithetic.

    A pair of problems goes on under weights θ + ε and θ − ε, with a new ε each truncation. The difference of their
    losses is credited to the sum of all ε since they were drawn, so that the estimate is of the whole training and not
    of a truncation: unbiased for the loss smoothed by N(0, σ²).
    """

    tasks: int = eqx.field(static=True, default=8)
    """Twice the number of pairs."""
    deviation: float = eqx.field(static=True, default=0.01)
    """σ."""

    def init(self, unroll: AbstractUnroll, weights: Weights, key: PRNGKeyArray) -> Particles:
        pairs = self.tasks // 2
        inner = draw(unroll, weights, key, pairs)
        zeros = jax.tree.map(lambda w: jnp.zeros((pairs, *w.shape), w.dtype), weights)
        return Particles(inner, inner, zeros)

    def step(
        self, unroll: AbstractUnroll, weights: Weights, carried: Particles, key: PRNGKeyArray
    ) -> tuple[Estimate, Particles]:
        keys = jax.random.split(key)
        pairs = self.tasks // 2
        noise = _noise(weights, keys[0], pairs, self.deviation)
        plus, minus, differences, means = _antithetic(unroll, weights, noise, carried.plus, carried.minus)
        total = jax.tree.map(jnp.add, carried.perturbation, noise)
        gradient = _credited(total, differences, self.deviation)
        done, diverged, ended = _pairs_ended(unroll, plus, minus)
        fresh = draw(unroll, weights, keys[1], pairs)
        zeros = jax.tree.map(jnp.zeros_like, total)
        following = Particles(
            replaced(ended, fresh, plus), replaced(ended, fresh, minus), replaced(ended, zeros, total)
        )
        return Estimate(gradient, jnp.mean(means), jnp.sum(diverged)), following


class EvolutionStrategies(AbstractEstimator):
    """Antithetic evolution strategies over whole inner trainings, of the mean loss over their truncations.

    Of a pair that has come to its end before the others nothing counts any more.
    """

    truncations: int = eqx.field(static=True)
    """Of the longest training."""
    tasks: int = eqx.field(static=True, default=8)
    """Twice the number of pairs."""
    deviation: float = eqx.field(static=True, default=0.01)
    """σ."""

    def init(self, unroll: AbstractUnroll, weights: Weights, key: PRNGKeyArray) -> None:
        return None

    def step(self, unroll: AbstractUnroll, weights: Weights, carried: None, key: PRNGKeyArray) -> tuple[Estimate, None]:
        keys = jax.random.split(key)
        pairs = self.tasks // 2
        noise = _noise(weights, keys[0], pairs, self.deviation)
        start = draw(unroll, weights, keys[1], pairs)

        def advance(held: tuple[Inner, Inner], _: None) -> tuple[tuple[Inner, Inner], tuple[Array, Array, Array]]:
            done, _, _ = _pairs_ended(unroll, *held)
            plus, minus, differences, means = _antithetic(unroll, weights, noise, *held)
            following = replaced(done, held[0], plus), replaced(done, held[1], minus)
            counted = (jnp.where(done, 0.0, each) for each in (differences, means, jnp.ones_like(means)))
            return following, tuple(counted)

        (plus, minus), sums = jax.lax.scan(advance, (start, start), length=self.truncations)
        differences, means, counts = (jnp.sum(each, axis=0) for each in sums)
        gradient = _credited(noise, differences / counts, self.deviation)
        _, diverged, _ = _pairs_ended(unroll, plus, minus)
        return Estimate(gradient, jnp.mean(means / counts), jnp.sum(diverged)), None


def _noise(weights: Weights, key: PRNGKeyArray, pairs: int, deviation: float) -> Weights:
    """ε for each pair."""
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        deviation * jax.random.normal(k, (pairs, *leaf.shape), leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def _antithetic(
    unroll: AbstractUnroll, weights: Weights, noise: Weights, plus: Inner, minus: Inner
) -> tuple[Inner, Inner, Float[Array, " pairs"], Float[Array, " pairs"]]:
    """Both problems of each pair a truncation on, the differences of their losses, and the means."""
    # In one program: problems of both signs lie side by side.
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), plus, minus)
    moved = jax.tree.map(lambda w, e: jnp.concatenate([w + e, w - e]), weights, noise)
    both, losses = jax.vmap(unroll.run)(moved, both)
    pairs = losses.shape[0] // 2
    plus, minus = (jax.tree.map(lambda x, part=part: x[part], both) for part in (slice(pairs), slice(pairs, None)))
    return plus, minus, losses[:pairs] - losses[pairs:], (losses[:pairs] + losses[pairs:]) / 2


def _credited(perturbation: Weights, differences: Float[Array, " pairs"], deviation: float) -> Weights:
    """Σ ξ (L⁺ − L⁻) / 2σ², the mean over pairs."""
    return jax.tree.map(
        lambda xi: jnp.tensordot(differences, xi, axes=1) / (2 * deviation**2 * differences.shape[0]), perturbation
    )


def _pairs_ended(
    unroll: AbstractUnroll, plus: Inner, minus: Inner
) -> tuple[Bool[Array, " pairs"], Bool[Array, " pairs"], Bool[Array, " pairs"]]:
    """Whether either problem of a pair is done, has diverged, or is to be replaced."""
    (done_plus, lost_plus), (done_minus, lost_minus) = (jax.vmap(unroll.ended)(each) for each in (plus, minus))
    done, diverged = done_plus | done_minus, lost_plus | lost_minus
    return done, diverged, done | diverged
