"""Perceptrons on random Fourier features of the inputs (Tancik et al. 2020, arXiv 2006.10739)."""

import math
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pydantic
from jaxtyping import Array, Float

from ..data import InputKind, Shape
from ._interface import AbstractNetwork, AbstractNetworkConfig, Depth, Params, Tensor, Width
from ._perceptron import perceive, perceptron


class FourierConfig(AbstractNetworkConfig):
    """Sines and cosines of random projections, which are not trained, and a perceptron on them."""

    kind: Literal["fourier"] = "fourier"
    width: Width
    depth: Depth = 3
    """Number of hidden layers."""
    features: Width = 64
    """Number of projections."""
    scale: Annotated[float, pydantic.Field(gt=0, le=1000)] = 2.0
    """Deviation of the projections' coefficients, in periods per unit."""

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    def build(self, input_shape: Shape, outputs: int) -> "Fourier":
        return Fourier(self, math.prod(input_shape), outputs)


class Fourier(AbstractNetwork):
    """All tasks have the same projections."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    projections: Float[Array, "inputs features"]

    def __init__(self, config: FourierConfig, inputs: int, outputs: int):
        self.tensors = perceptron("net", [2 * config.features, *[config.width] * config.depth, outputs])
        self.name = f"fourier-{config.features}-{config.scale:g}-{config.width}x{config.depth}"
        drawn = np.random.default_rng(0).normal(size=(inputs, config.features))
        self.projections = jnp.asarray(2 * np.pi * config.scale * drawn, jnp.float32)

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        angles = inputs @ self.projections
        features = 2**0.5 * jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        return perceive(params, features, jax.nn.relu)
