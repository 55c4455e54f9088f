"""Fully convolutional networks on time series (Wang et al. 2016, arXiv 1611.06455)."""

from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float

from ..data import InputKind, Shape
from ._interface import AbstractNetwork, AbstractNetworkConfig, Params, Tensor, Width
from ._layers import bias, linear, norm, normalise

KERNELS = (8, 5, 3)
"""Lengths of the kernels of the three layers."""
LAYER_TENSORS = 4


class TemporalConfig(AbstractNetworkConfig):
    """Three convolutions, each with normalisation and ReLU, and the mean over time."""

    kind: Literal["temporal"] = "temporal"
    channels: Annotated[tuple[Width, ...], pydantic.Field(min_length=3, max_length=3)] = (32, 64, 32)

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    def build(self, input_shape: Shape, outputs: int) -> "Temporal":
        return Temporal(self, outputs)


class Temporal(AbstractNetwork):
    """Channels are normalised at each time, where the paper normalises each channel over the batch."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)

    def __init__(self, config: TemporalConfig, outputs: int):
        tensors: list[Tensor] = []
        for place, (length, inner, outer) in enumerate(zip(KERNELS, (1, *config.channels), config.channels), 1):
            tensors += [
                Tensor((length, inner, outer), (2 / (length * inner)) ** 0.5, name=f"conv{place}.kernel"),
                bias(f"conv{place}.bias", outer),
                *norm(f"norm{place}", outer),
            ]
        self.tensors = (*tensors, *linear("head", config.channels[-1], outputs))
        self.name = f"temporal-{'x'.join(map(str, config.channels))}"

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        x = inputs.reshape(inputs.shape[0], -1, 1)
        for place in range(len(KERNELS)):
            kernel, shift, gain, offset = params[LAYER_TENSORS * place : LAYER_TENSORS * (place + 1)]
            convolved = _windows(x, kernel.shape[0]) @ kernel.reshape(-1, kernel.shape[-1]) + shift
            x = jax.nn.relu(normalise(convolved, gain, offset))
        head, head_bias = params[-2:]
        return x.mean(axis=1) @ head + head_bias


def _windows(x: Float[Array, "batch time channels"], length: int) -> Float[Array, "batch time window"]:
    """The times around each, zero outside, so that a convolution is one matrix product."""
    before = (length - 1) // 2
    padded = jnp.pad(x, ((0, 0), (before, length - 1 - before), (0, 0)))
    return jnp.concatenate([padded[:, i : i + x.shape[1]] for i in range(length)], axis=-1)
