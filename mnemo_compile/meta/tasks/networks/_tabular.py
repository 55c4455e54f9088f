"""Residual networks on rows of a table (Gorishniy et al. 2021, arXiv 2106.11959, section 3.2)."""

import math
from typing import Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ..data import InputKind, Shape
from ._interface import AbstractNetwork, AbstractNetworkConfig, Depth, Params, Tensor, Width
from ._layers import normalise
from ._perceptron import dense

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
                *_norm(f"blocks.{place}.norm", width),
                *dense(f"blocks.{place}.linear1", width, 2 * width),
                *dense(f"blocks.{place}.linear2", 2 * width, width, gain=2**0.5),
            )
        ]
        self.tensors = (
            *dense("first", inputs, width),
            *blocks,
            *_norm("norm", width),
            *dense("head", width, outputs, gain=2**0.5),
        )
        self.name = f"tabular-{width}x{config.depth}"

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        x = inputs.reshape(inputs.shape[0], -1) @ params[0] + params[1]
        for start in range(2, len(params) - 4, BLOCK_TENSORS):
            gain, bias, up, up_bias, down, down_bias = params[start : start + BLOCK_TENSORS]
            x = x + jax.nn.relu(normalise(x, gain, bias) @ up + up_bias) @ down + down_bias
        gain, bias, head, head_bias = params[-4:]
        return jax.nn.relu(normalise(x, gain, bias)) @ head + head_bias


def _norm(name: str, width: int) -> tuple[Tensor, Tensor]:
    return Tensor((width,), mean=1.0, name=f"{name}.weight"), Tensor((width,), name=f"{name}.bias")
