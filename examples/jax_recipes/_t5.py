"""T5 v1.1 in Equinox, frozen, with a soft prompt before its inputs.

Layers of equal shape are stacked and scanned, so that 24 of them compile as fast as one. Dropout is off.
"""

import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import click
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ._sharding import place, sharding_of
from ._weights import read_config, read_weights

IGNORED = -100
"""A target that no loss is computed for."""
NEVER = -1e9
"""The score of a token that must not be seen."""


class T5Shape(NamedTuple):
    """The sizes of a network."""

    width: int
    inner: int
    layers: int
    """Of the encoder, and of the decoder."""
    heads: int
    head: int
    """The width of a head."""
    vocabulary: int = 32128
    buckets: int = 32
    farthest: int = 128
    """The distance from which on all positions share a bucket."""
    epsilon: float = 1e-6
    has_head: bool = True
    """Whether the last layer has a matrix of its own, and not that of the embedding."""
    scales: bool = False
    """Whether the last hidden states are divided by the root of the width, as in T5 1.0."""


T5_SHAPES = {
    "t5-mini": T5Shape(128, 384, 4, 4, 32),
    "t5-small": T5Shape(512, 1024, 8, 6, 64),
    "t5-base": T5Shape(768, 2048, 12, 12, 64),
    "t5-large": T5Shape(1024, 2816, 24, 16, 64),
    "t5-xl": T5Shape(2048, 5120, 24, 32, 64),
    "t5-xxl": T5Shape(4096, 10240, 24, 64, 64),
}

Make = Callable[[tuple[int, ...], float], jax.Array]
"""Makes an array of this shape and standard deviation. A deviation of zero means ones."""


class Attention(eqx.Module):
    """Matrices of all layers of a stack: the first axis is the layer."""

    norm: jax.Array
    q: jax.Array
    k: jax.Array
    v: jax.Array
    o: jax.Array


class FeedForward(eqx.Module):
    """A gated perceptron: matrices of all layers of a stack."""

    norm: jax.Array
    wi_0: jax.Array
    wi_1: jax.Array
    wo: jax.Array


class Layers(eqx.Module):
    """All layers of a stack."""

    attention: Attention
    cross: Attention | None
    """Attention to the encoder, in a decoder."""
    mlp: FeedForward


class Stack(eqx.Module):
    """An encoder or a decoder."""

    layers: Layers
    relative_attention_bias: jax.Array
    norm: jax.Array


class T5(eqx.Module):
    """The weights of a T5."""

    shared: jax.Array
    encoder: Stack
    decoder: Stack
    lm_head: jax.Array | None
    shape: T5Shape = eqx.field(static=True)

    def encode(self, embedded: jax.Array, mask: jax.Array) -> jax.Array:
        """The encoder's hidden states: of inputs (batch, length, width) of which some are seen (batch, length)."""
        position = _bias(self.encoder, embedded.shape[1], self.shape, is_causal=False)
        return _run(self.encoder, embedded, position + _hidden(mask), None, self.shape)

    def decode(self, tokens: jax.Array, encoded: jax.Array, mask: jax.Array) -> jax.Array:
        """Logits of the token after each of these."""
        length = tokens.shape[1]
        position = _bias(self.decoder, length, self.shape, is_causal=True)
        causal = jnp.where(jnp.tril(jnp.ones((length, length), bool)), 0.0, NEVER)
        embedded = self.shared[tokens]
        hidden = _run(self.decoder, embedded, position + causal, (encoded, _hidden(mask)), self.shape)
        if self.shape.scales:
            hidden = hidden * self.shape.width**-0.5
        head = self.shared if self.lm_head is None else self.lm_head
        return jnp.einsum("btd,vd->btv", hidden, head, preferred_element_type=jnp.float32)


def t5_loss(
    prompt: jax.Array, model: T5, inputs: jax.Array, mask: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy per token of the targets, and the fraction of examples whose every token is the likeliest.

    **Arguments:**

    - `prompt`: the soft prompt (length, width), which stands before the embedded inputs.
    - `model`: the frozen network.
    - `inputs`, `mask`: tokens, and which of them count.
    - `targets`: tokens, `IGNORED` where there is none.
    """
    batch, width = len(inputs), model.shared.shape[1]
    before = jnp.broadcast_to(prompt.astype(model.shared.dtype), (batch, *prompt.shape))
    embedded = jnp.concatenate([before, model.shared[inputs]], axis=1)
    seen = jnp.concatenate([jnp.ones((batch, len(prompt)), bool), mask.astype(bool)], axis=1)
    assert embedded.shape[2] == width
    encoded = model.encode(embedded, seen)
    is_target = targets != IGNORED
    wanted = jnp.where(is_target, targets, 0)
    shifted = jnp.pad(wanted[:, :-1], ((0, 0), (1, 0)))
    logits = model.decode(shifted, encoded, seen)
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), wanted[..., None], axis=-1)[..., 0]
    loss = jnp.sum(losses * is_target) / jnp.maximum(jnp.sum(is_target), 1)
    is_right = jnp.all((jnp.argmax(logits, -1) == wanted) | ~is_target, axis=1)
    return loss, jnp.mean(is_right)


def _hidden(mask: jax.Array) -> jax.Array:
    """What is added to the scores of tokens: (batch, 1, 1, length)."""
    return jnp.where(mask, 0.0, NEVER)[:, None, None, :]


def _bias(stack: Stack, length: int, shape: T5Shape, *, is_causal: bool) -> jax.Array:
    """What a stack adds to the scores for the distance of two tokens: (1, heads, length, length)."""
    place = np.arange(length)
    buckets = _bucket(place[None, :] - place[:, None], shape, is_causal=is_causal)
    return jnp.transpose(stack.relative_attention_bias[buckets], (2, 0, 1))[None].astype(jnp.float32)


def _bucket(distance: np.ndarray, shape: T5Shape, *, is_causal: bool) -> np.ndarray:
    """The bucket of each distance: exact for short ones, and logarithmic for long ones."""
    count = shape.buckets if is_causal else shape.buckets // 2
    first = np.zeros_like(distance) if is_causal else np.where(distance > 0, count, 0)
    distance = np.maximum(-distance, 0) if is_causal else np.abs(distance)
    exact = count // 2
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / math.log(shape.farthest / exact)
    far = np.minimum(exact + (growth * (count - exact)).astype(int), count - 1)
    return first + np.where(distance < exact, distance, far)


def _run(
    stack: Stack, x: jax.Array, bias: jax.Array, encoded: tuple[jax.Array, jax.Array] | None, shape: T5Shape
) -> jax.Array:
    """All layers of a stack. The backward pass computes the activations of each layer again."""

    @jax.checkpoint
    def advance(x: jax.Array, layer: Layers) -> tuple[jax.Array, None]:
        normed = _normalised(x, layer.attention.norm, shape)
        x = x + _attend(layer.attention, normed, normed, bias, shape)
        if layer.cross is not None and encoded is not None:
            memory, hidden = encoded
            x = x + _attend(layer.cross, _normalised(x, layer.cross.norm, shape), memory, hidden, shape)
        normed = _normalised(x, layer.mlp.norm, shape)
        gate = jax.nn.gelu(_dense(normed, layer.mlp.wi_0)) * _dense(normed, layer.mlp.wi_1)
        return x + _dense(gate, layer.mlp.wo), None

    x, _ = jax.lax.scan(advance, x, stack.layers)
    return _normalised(x, stack.norm, shape)


def _dense(x: jax.Array, matrix: jax.Array) -> jax.Array:
    return jnp.einsum("...i,oi->...o", x, matrix)


def _normalised(x: jax.Array, gain: jax.Array, shape: T5Shape) -> jax.Array:
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + shape.epsilon)
    return gain * wide.astype(x.dtype)


def _attend(layer: Attention, x: jax.Array, memory: jax.Array, bias: jax.Array, shape: T5Shape) -> jax.Array:
    def heads(y: jax.Array, matrix: jax.Array) -> jax.Array:
        return _dense(y, matrix).reshape(*y.shape[:2], shape.heads, shape.head)

    scores = jnp.einsum("bqhd,bkhd->bhqk", heads(x, layer.q), heads(memory, layer.k))
    weights = jax.nn.softmax(scores.astype(jnp.float32) + bias).astype(x.dtype)
    values = jnp.einsum("bhqk,bkhd->bqhd", weights, heads(memory, layer.v))
    return _dense(values.reshape(*x.shape[:2], -1), layer.o)


def make_t5(shape: T5Shape, dtype: Any, seed: int) -> T5:
    """A network with random weights, of the initialisation of `transformers`. It can be traced by `jax.eval_shape`."""
    counter = iter(range(2**20))

    def make(sizes: tuple[int, ...], deviation: float) -> jax.Array:
        if not deviation:
            return jnp.ones(sizes, dtype)
        key = jax.random.fold_in(jax.random.key(seed), next(counter))
        return jnp.asarray(deviation, dtype) * jax.random.normal(key, sizes, dtype)

    return _build(shape, make)


def _build(shape: T5Shape, make: Make) -> T5:
    width, count, all_heads = shape.width, shape.layers, shape.heads * shape.head

    def attention() -> Attention:
        out = (count, all_heads, width)
        return Attention(
            norm=make((count, width), 0),
            q=make(out, (width * shape.head) ** -0.5),
            k=make(out, width**-0.5),
            v=make(out, width**-0.5),
            o=make((count, width, all_heads), all_heads**-0.5),
        )

    def stack(*, is_decoder: bool) -> Stack:
        mlp = FeedForward(
            norm=make((count, width), 0),
            wi_0=make((count, shape.inner, width), width**-0.5),
            wi_1=make((count, shape.inner, width), width**-0.5),
            wo=make((count, width, shape.inner), shape.inner**-0.5),
        )
        layers = Layers(attention(), attention() if is_decoder else None, mlp)
        return Stack(layers, make((shape.buckets, shape.heads), width**-0.5), make((width,), 0))

    return T5(
        shared=make((shape.vocabulary, width), 1),
        encoder=stack(is_decoder=False),
        decoder=stack(is_decoder=True),
        lm_head=make((shape.vocabulary, width), 1) if shape.has_head else None,
        shape=shape,
    )


def make_sharded_t5(shape: T5Shape, dtype: Any, seed: int, mesh: Mesh) -> T5:
    """The same network, of which each device makes its own part."""
    make = functools.partial(make_t5, shape, dtype, seed)
    shardings = jax.tree.map(lambda array: t5_sharding(mesh, array.shape), jax.eval_shape(make))
    return jax.jit(make, out_shardings=shardings)()


def shard_t5(model: T5, mesh: Mesh) -> T5:
    """Divides each matrix along its outputs. The axis of layers stays whole, because the layers are scanned."""
    return place(model, lambda array: t5_sharding(mesh, array.shape))


def t5_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """That of an array of a T5. Vectors are copied to all devices."""
    return sharding_of(mesh, shape, axis=len(shape) - 2) if len(shape) > 1 else sharding_of(mesh, (), 0)


def load_t5(folder: pathlib.Path, dtype: Any) -> T5:
    """A T5 v1.1 of `transformers` from its folder. Its arrays are still NumPy's."""
    config, weights = read_config(folder, "t5"), read_weights(folder)
    if config.get("feed_forward_proj") != "gated-gelu":
        raise click.UsageError(f"{folder}: a T5 v1.1 with gated GELU is needed.")
    shape = T5Shape(
        config["d_model"],
        config["d_ff"],
        config["num_layers"],
        config["num_heads"],
        config["d_kv"],
        config["vocab_size"],
        config.get("relative_attention_num_buckets", 32),
        config.get("relative_attention_max_distance", 128),
        config.get("layer_norm_epsilon", 1e-6),
        "lm_head.weight" in weights,
        # Configurations of before version 5 say it by the other option.
        config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True)),
    )
    if config.get("num_decoder_layers", shape.layers) != shape.layers:
        raise click.UsageError(f"{folder}: as many layers of the decoder as of the encoder are needed.")

    def take(name: str) -> Any:
        if name not in weights:
            raise click.UsageError(f"{folder}: the tensor {name} is absent; save the whole model with save_pretrained.")
        return weights[name].astype(dtype)

    def stacked(name: str) -> Any:
        return np.stack([take(name.format(layer)) for layer in range(shape.layers)])

    def attention(side: str, place: int, kind: str) -> Attention:
        base = f"{side}.block.{{}}.layer.{place}"
        matrices = {name: stacked(f"{base}.{kind}.{name}.weight") for name in "qkvo"}
        return Attention(norm=stacked(f"{base}.layer_norm.weight"), **matrices)

    def stack(side: str) -> Stack:
        is_decoder = side == "decoder"
        base = f"{side}.block.{{}}.layer.{2 if is_decoder else 1}"
        matrices = {name: stacked(f"{base}.DenseReluDense.{name}.weight") for name in ("wi_0", "wi_1", "wo")}
        layers = Layers(
            attention(side, 0, "SelfAttention"),
            attention(side, 1, "EncDecAttention") if is_decoder else None,
            FeedForward(norm=stacked(f"{base}.layer_norm.weight"), **matrices),
        )
        bias = take(f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
        return Stack(layers, bias, take(f"{side}.final_layer_norm.weight"))

    head = take("lm_head.weight") if shape.has_head else None
    return T5(take("shared.weight"), stack("encoder"), stack("decoder"), head, shape)
