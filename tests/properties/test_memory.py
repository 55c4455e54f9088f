"""The compact associative memory is attention over the discounted past, and the chunk encoder attention in the chunk; φ
is the kernel it claims to be."""

import itertools

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from mnemo_compile.cell import (
    AssociativeMemory,
    bounded,
    ChunkEncoder,
    discount,
    Kernel,
    orthogonal_gaussian,
    RandomFeatures,
)

KERNELS = st.sampled_from(["positive", "hyperbolic", "relu"])


@hypothesis.given(
    seed=st.integers(0, 2**16),
    steps=st.integers(1, 12),
    slots=st.integers(1, 3),
    token=st.integers(1, 5),
    heads=st.integers(1, 2),
    kernel=KERNELS,
)
@hypothesis.settings(max_examples=6, deadline=None)
def test_recurrence_equals_the_explicit_discounted_sum(
    seed: int, steps: int, slots: int, token: int, heads: int, kernel: Kernel
) -> None:
    keys = jax.random.split(jax.random.key(seed), 2)
    memory = AssociativeMemory(token, slots, 3, kernel, heads=heads, key=keys[0])
    inputs = jax.random.normal(keys[1], (steps, 1, slots, token))
    numerator, denominator = (state[None] for state in memory.initial_state())
    read = jnp.zeros(())
    recall = eqx.filter_jit(lambda memory, *rest: memory(*rest))
    for x in inputs:
        read, numerator, denominator = recall(memory, x, numerator, denominator)

    history = np.asarray(inputs[:, 0], np.float64)
    kept = np.asarray(discount(memory.log_rate))
    phi = eqx.filter_jit(lambda memory, x: memory.kernel(bounded(x)))
    for slot, head in itertools.product(range(slots), range(heads)):
        rows = slice(head * token, (head + 1) * token)
        rate = kept[slot * heads + head]
        keys_of_steps = [phi(memory, memory.key[rows] @ history[t, slot]) for t in range(steps)]
        query = phi(memory, memory.query[rows] @ history[-1, slot])
        weights = np.array([rate ** (steps - 1 - t) * float(query @ keys_of_steps[t]) for t in range(steps)])
        values = np.stack([memory.value[rows] @ history[t, slot] for t in range(steps)])
        expected = weights @ values / weights.sum()
        np.testing.assert_allclose(read[0, slot, rows], expected, rtol=2e-4, atol=2e-5)


@hypothesis.given(
    seed=st.integers(0, 2**16),
    lengths=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    token=st.sampled_from([1, 4]),
    kernel=KERNELS,
)
@hypothesis.settings(max_examples=6, deadline=None)
def test_chunk_encoder_equals_attention_from_each_coordinate_to_each(
    seed: int, lengths: tuple[int, int], token: int, kernel: Kernel
) -> None:
    keys = jax.random.split(jax.random.key(seed), 2)
    encoder = ChunkEncoder(3, token, 4, kernel, key=keys[0])
    features = jax.random.normal(keys[1], (3, 2, 5))
    tokens, _ = eqx.filter_jit(encoder)(features, jnp.arange(5) < jnp.array(lengths)[:, None])

    @eqx.filter_jit
    def phi(encoder: ChunkEncoder) -> list[Array]:
        own = jnp.tensordot(encoder.embed, features, axes=1)
        return [encoder.kernel(bounded(jnp.tensordot(w, own, axes=1))) for w in (encoder.query, encoder.key)]

    queries, others = (np.asarray(each, np.float64) for each in phi(encoder))
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), encoder)
    for chunk, length in enumerate(lengths):
        own = weights.embed @ np.asarray(features[:, chunk, :length], np.float64)
        scores = queries[:, chunk, :length].T @ others[:, chunk, :length]
        attended = weights.value @ own @ (scores / scores.sum(axis=1, keepdims=True)).T
        expected = np.tanh(weights.pool @ (own + weights.output @ attended)).mean(axis=1)
        np.testing.assert_allclose(tokens[:, chunk, 0], expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("kernel", ["positive", "hyperbolic"])
@pytest.mark.parametrize("dim", [2, 5])
def test_features_estimate_the_softmax_kernel_without_bias(kernel: Kernel, dim: int) -> None:
    draws, features = 4000, 2 * dim
    keys = jax.random.split(jax.random.key(7), 2)
    x, y = 0.5 * jax.random.normal(keys[0], (2, dim))
    estimates = jax.vmap(lambda key: (lambda phi: phi(x) @ phi(y))(RandomFeatures(features, dim, kernel, key=key)))(
        jax.random.split(keys[1], draws)
    )
    standard_error = jnp.std(estimates) / draws**0.5
    assert abs(float(jnp.mean(estimates) - jnp.exp(x @ y))) < 4 * float(standard_error)


@hypothesis.given(seed=st.integers(0, 2**16), blocks=st.integers(1, 3), dim=st.integers(1, 8))
@hypothesis.settings(max_examples=10, deadline=None)
def test_projections_are_orthogonal_within_a_block(seed: int, blocks: int, dim: int) -> None:
    rows = np.asarray(orthogonal_gaussian(jax.random.key(seed), blocks * dim, dim)).reshape(blocks, dim, dim)
    for block in rows:
        unit = block / np.linalg.norm(block, axis=1, keepdims=True)
        np.testing.assert_allclose(unit @ unit.T, np.eye(dim), atol=1e-5)


@hypothesis.given(exponent=st.floats(-6, 15), seed=st.integers(0, 2**16), kernel=KERNELS)
@hypothesis.settings(max_examples=30, deadline=None)
def test_bounded_inputs_never_overflow(exponent: float, seed: int, kernel: Kernel) -> None:
    keys = jax.random.split(jax.random.key(seed), 2)
    x = 10**exponent * jax.random.normal(keys[0], (6, 4))
    features = RandomFeatures(8, 6, kernel, key=keys[1])(bounded(x))
    assert bool(jnp.all(jnp.isfinite(features))) and bool(jnp.all(features > 0))


def test_features_are_not_trained() -> None:
    phi = RandomFeatures(4, 3, "positive", key=jax.random.key(0))
    gradient = eqx.filter_grad(lambda phi: jnp.sum(phi(jnp.ones(3))))(phi)
    assert not bool(jnp.any(gradient.projection))
