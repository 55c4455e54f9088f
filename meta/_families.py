"""Families of inner problems: a small network, how it starts, and its loss on a batch of images."""

import abc
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float, Int

Width = Annotated[int, pydantic.Field(ge=1, le=4096)]
Activation = Literal["relu", "gelu", "tanh"]

IMAGE = 8
"""Side of an image, in pixels."""
CLASSES = 10


class _Config(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class MLPConfig(_Config):
    """A multilayer perceptron on the pixels."""

    family: Literal["mlp"]
    widths: Annotated[tuple[Width, ...], pydantic.Field(min_length=1)]
    activation: Activation = "relu"


class ConvConfig(_Config):
    """Two 3×3 convolutions, the second at half the resolution, and a linear head on the mean over places."""

    family: Literal["conv"]
    channels: tuple[Width, Width]
    activation: Activation = "relu"


class ViTConfig(_Config):
    """A pre-norm Vision Transformer on 2×2 patches."""

    family: Literal["vit"]
    width: Width
    depth: Annotated[int, pydantic.Field(ge=1, le=64)] = 1
    heads: Width = 2

    @pydantic.model_validator(mode="after")
    def _heads_divide_width(self) -> "ViTConfig":
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} must divide width = {self.width}")
        return self


FamilyConfig = Annotated[MLPConfig | ConvConfig | ViTConfig, pydantic.Field(discriminator="family")]


class AbstractFamily(eqx.Module):
    """Networks of one architecture; what differs from task to task is their weights and data."""

    name: eqx.AbstractVar[str]
    shapes: eqx.AbstractVar[tuple[tuple[int, ...], ...]]
    """Shape of each parameter tensor."""
    gains: eqx.AbstractVar[frozenset[int]]
    """Positions of the gains of normalisations among the tensors."""

    @abc.abstractmethod
    def logits(
        self, params: Sequence[Float[Array, "..."]], images: Float[Array, "batch pixels"]
    ) -> Float[Array, "batch classes"]:
        """The network's output."""

    @property
    def deviations(self) -> tuple[float, ...]:
        """Standard deviation at the start of each tensor: 1 / sqrt(fan-in) for matrices, 0 for vectors."""
        return tuple(math.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else 0.0 for shape in self.shapes)

    @property
    def means(self) -> tuple[float, ...]:
        """Mean at the start of each tensor: 1 for gains of normalisations, else 0."""
        return tuple(float(index in self.gains) for index in range(len(self.shapes)))

    def loss(
        self,
        params: Sequence[Float[Array, "..."]],
        images: Float[Array, "batch pixels"],
        labels: Int[Array, " batch"],
    ) -> Float[Array, ""]:
        """Mean cross-entropy, in nats."""
        log_probabilities = jax.nn.log_softmax(self.logits(params, images))
        return -jnp.mean(jnp.sum(jax.nn.one_hot(labels, CLASSES) * log_probabilities, axis=1))


def _activate(name: Activation, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return {"relu": jax.nn.relu, "gelu": jax.nn.gelu, "tanh": jnp.tanh}[name](x)


class MLP(AbstractFamily):
    """See `MLPConfig`."""

    name: str = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    gains: frozenset[int] = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(self, config: MLPConfig):
        sizes = (IMAGE * IMAGE, *config.widths, CLASSES)
        self.name = f"mlp-{'x'.join(map(str, config.widths))}-{config.activation}"
        self.shapes = tuple(
            shape for rows, columns in zip(sizes, sizes[1:], strict=False) for shape in ((rows, columns), (columns,))
        )
        self.gains = frozenset()
        self.activation = config.activation

    def logits(
        self, params: Sequence[Float[Array, "..."]], images: Float[Array, "batch pixels"]
    ) -> Float[Array, "batch classes"]:
        x = images
        for layer in range(0, len(params), 2):
            x = x @ params[layer] + params[layer + 1]
            if layer + 2 < len(params):
                x = _activate(self.activation, x)
        return x


def _convolve(x: Float[Array, "batch side side channels"], kernel: Float[Array, "nine channels out"]) -> Array:
    """A 3×3 convolution with zero padding as one matrix product: under vmap over weights it stays one."""
    side = x.shape[1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = jnp.stack([padded[:, i : i + side, j : j + side] for i in range(3) for j in range(3)], axis=-2)
    return jnp.einsum("bijkc,kco->bijo", patches, kernel)


class Conv(AbstractFamily):
    """See `ConvConfig`."""

    name: str = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    gains: frozenset[int] = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(self, config: ConvConfig):
        first, second = config.channels
        self.name = f"conv-{first}-{second}-{config.activation}"
        self.shapes = ((9, 1, first), (first,), (9, first, second), (second,), (second, CLASSES), (CLASSES,))
        self.gains = frozenset()
        self.activation = config.activation

    def logits(
        self, params: Sequence[Float[Array, "..."]], images: Float[Array, "batch pixels"]
    ) -> Float[Array, "batch classes"]:
        x = images.reshape(-1, IMAGE, IMAGE, 1)
        x = _activate(self.activation, _convolve(x, params[0]) + params[1])
        half = IMAGE // 2
        x = x.reshape(-1, half, 2, half, 2, x.shape[-1]).mean(axis=(2, 4))
        x = _activate(self.activation, _convolve(x, params[2]) + params[3])
        return x.mean(axis=(1, 2)) @ params[4] + params[5]


def _normalise(x: Float[Array, "*shape width"], gain: Float[Array, " width"], bias: Float[Array, " width"]) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-5) * gain + bias


class ViT(AbstractFamily):
    """See `ViTConfig`."""

    name: str = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    gains: frozenset[int] = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)

    def __init__(self, config: ViTConfig):
        width = config.width
        block = (
            (width,),
            (width,),
            (width, 3 * width),
            (3 * width,),
            (width, width),
            (width,),
            (width,),
            (width,),
            (width, 2 * width),
            (2 * width,),
            (2 * width, width),
            (width,),
        )
        self.name = f"vit-{width}x{config.depth}"
        self.shapes = (
            (4, width),
            (width,),
            (16, width),
            *(block * config.depth),
            (width,),
            (width,),
            (width, CLASSES),
            (CLASSES,),
        )
        self.gains = frozenset(3 + 12 * block + place for block in range(config.depth) for place in (0, 6)) | {
            3 + 12 * config.depth
        }
        self.heads = config.heads
        self.depth = config.depth

    def logits(
        self, params: Sequence[Float[Array, "..."]], images: Float[Array, "batch pixels"]
    ) -> Float[Array, "batch classes"]:
        half = IMAGE // 2
        patches = images.reshape(-1, half, 2, half, 2).swapaxes(2, 3).reshape(-1, half * half, 4)
        x = patches @ params[0] + params[1] + params[2]
        for start in range(3, 3 + 12 * self.depth, 12):
            gain, bias, qkv, qkv_bias, out, out_bias, gain2, bias2, up, up_bias, down, down_bias = params[
                start : start + 12
            ]
            projected = (_normalise(x, gain, bias) @ qkv + qkv_bias).reshape(*x.shape[:2], 3, self.heads, -1)
            q, k, v = projected[:, :, 0], projected[:, :, 1], projected[:, :, 2]
            scores = jax.nn.softmax(jnp.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5)
            attended = jnp.einsum("bhij,bjhd->bihd", scores, v).reshape(x.shape)
            x = x + attended @ out + out_bias
            x = x + jax.nn.gelu(_normalise(x, gain2, bias2) @ up + up_bias) @ down + down_bias
        gain, bias, head, head_bias = params[-4:]
        return _normalise(x, gain, bias).mean(axis=1) @ head + head_bias


_FAMILIES = {MLPConfig: MLP, ConvConfig: Conv, ViTConfig: ViT}


def build_family(config: MLPConfig | ConvConfig | ViTConfig) -> AbstractFamily:
    """The family of this configuration."""
    return _FAMILIES[type(config)](config)
