"""Linear networks with hidden layers (Rahimi and Recht 2017, "Reflections on Random Kitchen Sinks")."""

import math
from typing import Annotated, Literal

import equinox as eqx
import pydantic
from jaxtyping import Array, Float

from ..data import InputKind, Shape
from ._interface import AbstractNetwork, AbstractNetworkConfig, Params, Tensor, Width


class LinearConfig(AbstractNetworkConfig):
    """A product of matrices, without nonlinearities and biases; a single matrix where there are no widths."""

    kind: Literal["linear"] = "linear"
    widths: Annotated[tuple[Width, ...], pydantic.Field(max_length=8)] = ()

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    def build(self, input_shape: Shape, outputs: int) -> "Linear":
        return Linear(self, math.prod(input_shape), outputs)


class Linear(AbstractNetwork):
    """A single matrix starts at zero, as in least squares; several start at random, since zeros would not move."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)

    def __init__(self, config: LinearConfig, inputs: int, outputs: int):
        pairs = zip((inputs, *config.widths), (*config.widths, outputs), strict=True)
        self.tensors = tuple(
            Tensor((rows, columns), rows**-0.5 if config.widths else 0.0, name=f"layers.{place}.weight")
            for place, (rows, columns) in enumerate(pairs)
        )
        self.name = f"linear-{'x'.join(map(str, config.widths)) or 'alone'}"

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        x = inputs.reshape(inputs.shape[0], -1)
        for matrix in params:
            x = x @ matrix
        return x
