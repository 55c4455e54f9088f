"""MLP-mixers (Tolstikhin et al. 2021, arXiv 2105.01601)."""

import itertools
from typing import Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ..data import InputKind, Shape
from ._images import patches, patches_of
from ._interface import AbstractNetwork, AbstractNetworkConfig, Depth, Params, Tensor, Width
from ._layers import linear, norm, normalise

PATCH = 2
"""Side of a patch."""
BLOCK_TENSORS = 12
"""How many tensors a block has."""


class MixerConfig(AbstractNetworkConfig):
    """An MLP-mixer on 2×2 patches."""

    kind: Literal["mixer"] = "mixer"
    width: Width
    depth: Depth = 1

    @property
    def input_kind(self) -> InputKind:
        return "images"

    def build(self, input_shape: Shape, outputs: int) -> "Mixer":
        return Mixer(self, input_shape, outputs)


class Mixer(AbstractNetwork):
    """Networks over places and over channels, in turn."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: MixerConfig = eqx.field(static=True)

    def __init__(self, config: MixerConfig, input_shape: Shape, outputs: int):
        width = config.width
        places, numbers = patches_of(input_shape, PATCH)
        blocks = [_block(f"blocks.{place}", places, width) for place in range(config.depth)]
        self.tensors = (
            *linear("patch_embedding", numbers, width),
            *itertools.chain.from_iterable(blocks),
            *norm("norm", width),
            *linear("head", width, outputs),
        )
        self.name = f"mixer-{width}x{config.depth}"
        self.config = config

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        x = patches(inputs, PATCH) @ params[0] + params[1]
        for start in range(2, 2 + BLOCK_TENSORS * self.config.depth, BLOCK_TENSORS):
            x = _mix(x, params[start : start + BLOCK_TENSORS])
        gain, bias, head, head_bias = params[-4:]
        return normalise(x, gain, bias).mean(axis=1) @ head + head_bias


def _block(name: str, places: int, width: int) -> tuple[Tensor, ...]:
    return (
        *norm(f"{name}.norm1", width),
        *linear(f"{name}.tokens.up", places, 2 * places),
        *linear(f"{name}.tokens.down", 2 * places, places),
        *norm(f"{name}.norm2", width),
        *linear(f"{name}.channels.up", width, 2 * width),
        *linear(f"{name}.channels.down", 2 * width, width),
    )


def _mix(x: Float[Array, "batch place width"], params: Params) -> Float[Array, "batch place width"]:
    gain1, bias1, over, over_bias, back, back_bias, gain2, bias2, up, up_bias, down, down_bias = params
    channels_first = normalise(x, gain1, bias1).swapaxes(1, 2)
    x = x + (jax.nn.gelu(channels_first @ over + over_bias) @ back + back_bias).swapaxes(1, 2)
    return x + jax.nn.gelu(normalise(x, gain2, bias2) @ up + up_bias) @ down + down_bias
