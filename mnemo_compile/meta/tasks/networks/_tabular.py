"""Residual networks on rows of a table (Gorishniy et al. 2021, arXiv 2106.11959, section 3.2)."""

import math
from typing import Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ..data import InputKind, Shape
from ._interface import AbstractNetwork, AbstractNetworkConfig, Depth, Params, Tensor, Width
from ._layers import linear, norm, normalise

BLOCK_TENSORS = 6


class TabularConfig(AbstractNetworkConfig):
    """A linear map, blocks of two layers with normalisation, and a head."""

    kind: Literal["tabular"] = "tabular"
    width: Width
    depth: Depth = 2
    """Number of blocks, whose inner layer is twice as wide."""

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    def build(self, input_shape: Shape, outputs: int) -> "Tabular":
        return Tabular(self, math.prod(input_shape), outputs)


class Tabular(AbstractNetwork):
    """Each row is normalised, where the paper normalises each column over the batch, and there is no dropout."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)

    def __init__(self, config: TabularConfig, inputs: int, outputs: int):
        width = config.width
        blocks = [
            tensor
            for place in range(config.depth)
            for tensor in (
                *norm(f"blocks.{place}.norm", width),
                *linear(f"blocks.{place}.linear1", width, 2 * width),
                *linear(f"blocks.{place}.linear2", 2 * width, width, 2**0.5),
            )
        ]
        self.tensors = (
            *linear("first", inputs, width),
            *blocks,
            *norm("norm", width),
            *linear("head", width, outputs, 2**0.5),
        )
        self.name = f"tabular-{width}x{config.depth}"

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        x = inputs.reshape(inputs.shape[0], -1) @ params[0] + params[1]
        for start in range(2, len(params) - 4, BLOCK_TENSORS):
            gain, bias, up, up_bias, down, down_bias = params[start : start + BLOCK_TENSORS]
            x = x + jax.nn.relu(normalise(x, gain, bias) @ up + up_bias) @ down + down_bias
        gain, bias, head, head_bias = params[-4:]
        return jax.nn.relu(normalise(x, gain, bias)) @ head + head_bias
