"""The Vision Transformer of `transformers`, in Equinox: the same fields, so the same names of parameters."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import click
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._weights import read_config, read_weights


class ViTShape(NamedTuple):
    """The sizes of a network."""

    width: int
    layers: int
    heads: int
    inner: int
    size: int
    """The side of images."""
    patch: int
    channels: int = 3
    epsilon: float = 1e-12


VIT_SHAPES = {
    "vit-tiny-16": ViTShape(96, 4, 4, 192, 16, 4),
    "vit-base": ViTShape(768, 12, 12, 3072, 224, 16),
    "vit-large": ViTShape(1024, 24, 16, 4096, 224, 16),
    "vit-huge": ViTShape(1280, 32, 16, 5120, 224, 14),
    "vit-36x16": ViTShape(1280, 36, 16, 5120, 224, 14),
}


def per_token(layer: eqx.Module, x: jax.Array) -> jax.Array:
    """Applies a layer to each token."""
    return jax.vmap(layer)(x)  # pyright: ignore[reportArgumentType]


class Attention(eqx.Module):
    """Attention of all tokens to all tokens."""

    q_proj: eqx.nn.Linear
    k_proj: eqx.nn.Linear
    v_proj: eqx.nn.Linear
    o_proj: eqx.nn.Linear
    heads: int = eqx.field(static=True)

    def __init__(self, shape: ViTShape, key: jax.Array):
        keys = jax.random.split(key, 4)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            eqx.nn.Linear(shape.width, shape.width, key=each) for each in keys
        )
        self.heads = shape.heads

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = (
            per_token(layer, x).reshape(len(x), self.heads, -1) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        return per_token(self.o_proj, jax.nn.dot_product_attention(q, k, v).reshape(x.shape))


class Mlp(eqx.Module):
    """Two dense layers, for each token."""

    fc1: eqx.nn.Linear
    fc2: eqx.nn.Linear

    def __init__(self, shape: ViTShape, key: jax.Array):
        first, second = jax.random.split(key)
        self.fc1 = eqx.nn.Linear(shape.width, shape.inner, key=first)
        self.fc2 = eqx.nn.Linear(shape.inner, shape.width, key=second)

    def __call__(self, x: jax.Array) -> jax.Array:
        return per_token(self.fc2, jax.nn.gelu(per_token(self.fc1, x), approximate=False))


class Layer(eqx.Module):
    """A pre-norm layer."""

    attention: Attention
    mlp: Mlp
    layernorm_before: eqx.nn.LayerNorm
    layernorm_after: eqx.nn.LayerNorm

    def __init__(self, shape: ViTShape, key: jax.Array):
        first, second = jax.random.split(key)
        self.attention, self.mlp = Attention(shape, first), Mlp(shape, second)
        self.layernorm_before = eqx.nn.LayerNorm(shape.width, shape.epsilon)
        self.layernorm_after = eqx.nn.LayerNorm(shape.width, shape.epsilon)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(per_token(self.layernorm_before, x))
        return x + self.mlp(per_token(self.layernorm_after, x))


class PatchEmbeddings(eqx.Module):
    """A dense layer for each patch, as a convolution."""

    projection: eqx.nn.Conv2d

    def __init__(self, shape: ViTShape, key: jax.Array):
        self.projection = eqx.nn.Conv2d(shape.channels, shape.width, shape.patch, shape.patch, key=key)

    def __call__(self, image: jax.Array) -> jax.Array:
        patches = self.projection(image)
        return patches.reshape(len(patches), -1).T


class Embeddings(eqx.Module):
    """Tokens of an image: one for the class, and one for each patch."""

    cls_token: jax.Array
    position_embeddings: jax.Array
    patch_embeddings: PatchEmbeddings

    def __init__(self, shape: ViTShape, key: jax.Array):
        first, second, third = jax.random.split(key, 3)
        tokens = (shape.size // shape.patch) ** 2 + 1
        self.cls_token = 0.02 * jax.random.truncated_normal(first, -2, 2, (1, 1, shape.width))
        self.position_embeddings = 0.02 * jax.random.truncated_normal(second, -2, 2, (1, tokens, shape.width))
        self.patch_embeddings = PatchEmbeddings(shape, third)

    def __call__(self, image: jax.Array) -> jax.Array:
        return jnp.concatenate([self.cls_token[0], self.patch_embeddings(image)]) + self.position_embeddings[0]


class ViT(eqx.Module):
    """Logits of one image, of shape (channels, size, size)."""

    embeddings: Embeddings
    layers: list[Layer]
    layernorm: eqx.nn.LayerNorm
    classifier: eqx.nn.Linear
    size: int = eqx.field(static=True)
    remat: bool = eqx.field(static=True)
    """Whether the backward pass computes the activations of a layer again."""

    def __init__(self, shape: ViTShape, classes: int, remat: bool, key: jax.Array):
        first, second, *keys = jax.random.split(key, shape.layers + 2)
        self.embeddings = Embeddings(shape, first)
        self.layers = [Layer(shape, each) for each in keys]
        self.layernorm = eqx.nn.LayerNorm(shape.width, shape.epsilon)
        self.classifier = eqx.nn.Linear(shape.width, classes, key=second)
        self.size, self.remat = shape.size, remat

    def __call__(self, image: jax.Array) -> jax.Array:
        x = self.embeddings(image)
        for layer in self.layers:
            x = jax.checkpoint(lambda one, y: one(y))(layer, x) if self.remat else layer(x)
        return self.classifier(self.layernorm(x[0]))


def make_vit(shape: ViTShape, classes: int, remat: bool, seed: int) -> ViT:
    """A network with the initialisation of `transformers`: matrices of 0.02, and biases of zero. Arrays are NumPy's."""
    names, structure = named(eqx.filter_eval_shape(ViT, shape, classes, remat, jax.random.key(0)))
    random = np.random.default_rng(seed)

    def initial(name: str, leaf: Any) -> np.ndarray:
        if name.endswith(".bias"):
            return np.zeros(leaf.shape, np.float32)
        if leaf.ndim == 1:
            return np.ones(leaf.shape, np.float32)
        return np.float32(0.02) * random.standard_normal(leaf.shape, np.float32)

    return jax.tree.unflatten(structure, [initial(name, leaf) for name, leaf in names.items()])


def named(model: ViT) -> tuple[dict[str, Any], Any]:
    """The parameters by name, and the structure of their tree."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(model)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}, structure


RENAMED = (
    (r"^vit\.", ""),
    (r"^encoder\.layer\.", "layers."),
    (r"attention\.attention\.(query|key|value)\.", lambda match: f"attention.{match[1][0]}_proj."),
    (r"attention\.output\.dense\.", "attention.o_proj."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)
"""From the names in files, which are those of older versions, to those of the fields above."""


def with_weights(model: ViT, weights: Mapping[str, np.ndarray], folder: pathlib.Path) -> ViT:
    """The network with these weights. A classifier of another size is left as it is, and so is one that is absent."""
    renamed = {}
    for name, value in weights.items():
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    names, structure = named(model)
    leaves = []
    for name, leaf in names.items():
        value = renamed.get(name)
        if name.endswith("projection.bias") and value is not None:
            value = value.reshape(-1, 1, 1)  # Equinox gives the bias of a convolution axes of space.
        is_head = name.startswith("classifier.")
        if is_head and (value is None or value.shape != leaf.shape):
            value = leaf
        if value is None or value.shape != leaf.shape:
            shape = "absent" if value is None else f"of shape {value.shape}"
            raise click.UsageError(f"{folder}: the tensor {name} is {shape}, and {leaf.shape} is needed.")
        leaves.append(value.astype(np.float32))
    return jax.tree.unflatten(structure, leaves)


def load_vit(folder: pathlib.Path, classes: int, remat: bool, seed: int) -> ViT:
    """A network of `transformers` from its folder, with a classifier for this number of classes."""
    config = read_config(folder, "vit")
    if not config.get("qkv_bias", True) or config.get("hidden_act", "gelu") != "gelu":
        raise click.UsageError(f"{folder}: a ViT with biases and GELU is needed.")
    shape = ViTShape(
        config["hidden_size"],
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["intermediate_size"],
        config["image_size"],
        config["patch_size"],
        config.get("num_channels", 3),
        config.get("layer_norm_eps", 1e-12),
    )
    return with_weights(make_vit(shape, classes, remat, seed), read_weights(folder), folder)
