"""Perceptrons on embeddings of each number of a row (Gorishniy et al. 2022, arXiv 2203.05556)."""

import math
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float

from ..data import InputKind, Shape
from ._interface import AbstractNetwork, AbstractNetworkConfig, Params, Tensor, Width
from ._perceptron import perceive, perceptron


class PeriodicConfig(AbstractNetworkConfig):
    """Sines and cosines with trained frequencies, a linear map and a ReLU for each number; then a perceptron."""

    kind: Literal["periodic"] = "periodic"
    widths: tuple[Width, ...]
    frequencies: Width = 8
    embedding: Width = 8
    scale: Annotated[float, pydantic.Field(gt=0, le=100)] = 0.3
    """Deviation of the frequencies at the start."""

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    def build(self, input_shape: Shape, outputs: int) -> "Periodic":
        return Periodic(self, math.prod(input_shape), outputs)


class Periodic(AbstractNetwork):
    """The paper's PLR: periodic, linear, ReLU."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)

    def __init__(self, config: PeriodicConfig, inputs: int, outputs: int):
        count, wide = config.frequencies, config.embedding
        *hidden, weight, bias = perceptron("mlp", [inputs * wide, *config.widths, outputs])
        self.tensors = (
            Tensor((inputs, count), config.scale, name="frequency_embedding"),
            Tensor((inputs, 2 * count, wide), count**-0.5, name="number_embedding"),
            Tensor((inputs, wide), name="number_bias"),
            *hidden,
            weight._replace(name="head.weight"),
            bias._replace(name="head.bias"),
        )
        self.name = f"periodic-{count}-{wide}-{'x'.join(map(str, config.widths))}"

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        frequencies, weight, bias, *rest = params
        angles = 2 * jnp.pi * inputs.reshape(inputs.shape[0], -1, 1) * frequencies
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        embedded = jax.nn.relu(jnp.einsum("bif,ifw->biw", waves, weight) + bias)
        return perceive(rest, embedded.reshape(inputs.shape[0], -1), jax.nn.relu)
