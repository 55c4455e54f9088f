"""Networks with sines (SIREN; Sitzmann et al. 2020, arXiv 2006.09661)."""

import math
from typing import Annotated, Literal

import equinox as eqx
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float

from ..data import InputKind, Shape
from ._interface import AbstractNetwork, AbstractNetworkConfig, Depth, Params, Tensor, Width
from ._perceptron import perceive


class SirenConfig(AbstractNetworkConfig):
    """A perceptron whose activation is sin(ω x)."""

    kind: Literal["siren"] = "siren"
    width: Width
    depth: Depth = 3
    """Number of layers with a sine."""
    frequency: Annotated[float, pydantic.Field(gt=0, le=1000)] = 30.0
    """ω; 30 in the paper."""

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    def build(self, input_shape: Shape, outputs: int) -> "Siren":
        return Siren(self, math.prod(input_shape), outputs)


class Siren(AbstractNetwork):
    """Weights start with the variance of section 3.2, from a normal distribution."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    frequency: float = eqx.field(static=True)

    def __init__(self, config: SirenConfig, inputs: int, outputs: int):
        widths = [inputs, *[config.width] * config.depth, outputs]
        tensors: list[Tensor] = []
        for place, (rows, columns) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            # The variance of a uniform distribution is a third of its bound squared.
            deviation = (2 / rows) ** 0.5 / config.frequency if place else 3**-0.5 / rows
            tensors += [
                Tensor((rows, columns), deviation, name=f"net.{place}.linear.weight"),
                Tensor((columns,), (3 * rows) ** -0.5, name=f"net.{place}.linear.bias"),
            ]
        self.tensors = tuple(tensors)
        self.name = f"siren-{config.width}x{config.depth}-{config.frequency:g}"
        self.frequency = config.frequency

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        return perceive(params, inputs, lambda x: jnp.sin(self.frequency * x))
