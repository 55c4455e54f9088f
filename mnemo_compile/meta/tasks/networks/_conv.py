"""Convolutional networks, plain and residual."""

from typing import Annotated, Literal

import equinox as eqx
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float

from ..data import InputKind, Shape
from ._images import channels_of, with_channels
from ._interface import AbstractNetwork, AbstractNetworkConfig, Params, Tensor, Width
from ._layers import activate, Activation, bias, linear, norm, normalise


class ConvConfig(AbstractNetworkConfig):
    """3×3 convolutions, each after the first at half the resolution, then the mean over places."""

    kind: Literal["conv"] = "conv"
    channels: Annotated[tuple[Width, ...], pydantic.Field(min_length=1, max_length=4)]
    activation: Activation = "relu"
    residual_blocks: Annotated[int, pydantic.Field(ge=0, le=8)] = 0
    """Blocks of two convolutions each, with normalisation, after every one of `channels`."""

    @property
    def input_kind(self) -> InputKind:
        return "images"

    def build(self, input_shape: Shape, outputs: int) -> "Conv":
        return Conv(self, channels_of(input_shape), outputs)


class Conv(AbstractNetwork):
    """A convolutional network; with blocks, a residual one."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: ConvConfig = eqx.field(static=True)

    def __init__(self, config: ConvConfig, channels: int, outputs: int):
        tensors: list[Tensor] = []
        for stage, wide in enumerate(config.channels):
            tensors += _convolution(f"stages.{stage}.conv", channels, wide)
            for place in range(config.residual_blocks):
                block = f"stages.{stage}.blocks.{place}"
                tensors += norm(f"{block}.norm", wide)
                tensors += _convolution(f"{block}.conv1", wide, wide)
                tensors += _convolution(f"{block}.conv2", wide, wide)
            channels = wide
        self.tensors = (*tensors, *linear("head", channels, outputs))
        what = f"resnet{config.residual_blocks}" if config.residual_blocks else "conv"
        self.name = f"{what}-{'x'.join(map(str, config.channels))}-{config.activation}"
        self.config = config

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        x, left = with_channels(inputs), iter(params)

        def convolve(x: Array) -> Array:
            kernel, shift = next(left), next(left)
            return neighbourhoods(x) @ kernel.reshape(-1, kernel.shape[-1]) + shift

        for stage, _ in enumerate(self.config.channels):
            x = activate(self.config.activation, convolve(_halved(x) if stage else x))
            for _ in range(self.config.residual_blocks):
                inner = activate(self.config.activation, convolve(normalise(x, next(left), next(left))))
                x = x + convolve(inner)
        return x.mean(axis=(1, 2)) @ next(left) + next(left)


def _convolution(name: str, inner: int, outer: int) -> tuple[Tensor, Tensor]:
    """A kernel, whose name is Flax's as the order of its axes is, and its bias."""
    return Tensor((3, 3, inner, outer), (9 * inner) ** -0.5, name=f"{name}.kernel"), bias(f"{name}.bias", outer)


def neighbourhoods(x: Float[Array, "batch side side channels"]) -> Float[Array, "batch side side neighbourhood"]:
    """The 3×3 neighbourhood of each place, zero outside. A convolution is then one matrix product, also under vmap."""
    side = x.shape[1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, i : i + side, j : j + side] for i in range(3) for j in range(3)], axis=-1)


def _halved(x: Float[Array, "batch side side channels"]) -> Float[Array, "batch half half channels"]:
    """Means of 2×2 places."""
    half = x.shape[1] // 2
    return x[:, : 2 * half, : 2 * half].reshape(x.shape[0], half, 2, half, 2, -1).mean(axis=(2, 4))
