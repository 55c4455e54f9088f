"""Multilayer perceptrons."""

import math
from typing import Literal

import equinox as eqx
from jaxtyping import Array, Float

from ..data import InputKind, Shape
from ._interface import AbstractNetwork, AbstractNetworkConfig, Params, Tensor, Width
from ._layers import activate, Activation, bias, gain, matrix, normalise

Normalisation = Literal["none", "layer", "rms"]


class MLPConfig(AbstractNetworkConfig):
    """A multilayer perceptron on all inputs at once."""

    kind: Literal["mlp"] = "mlp"
    widths: tuple[Width, ...]
    activation: Activation = "relu"
    normalisation: Normalisation = "none"

    @property
    def input_kind(self) -> InputKind:
        return "numbers"

    def build(self, input_shape: Shape, outputs: int) -> "MLP":
        return MLP(self, math.prod(input_shape), outputs)


class MLP(AbstractNetwork):
    """x ← activation(normalise(W x + b)) for each width, then a linear map."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: MLPConfig = eqx.field(static=True)

    def __init__(self, config: MLPConfig, inputs: int, outputs: int):
        tensors, width = [], inputs
        for wide in config.widths:
            tensors += [matrix(width, wide), bias(wide), *_norm_tensors(config.normalisation, wide)]
            width = wide
        self.tensors = (*tensors, matrix(width, outputs), bias(outputs))
        norm = "" if config.normalisation == "none" else f"-{config.normalisation}"
        self.name = f"mlp-{'x'.join(map(str, config.widths)) or 'linear'}-{config.activation}{norm}"
        self.config = config

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        x, left = inputs.reshape(inputs.shape[0], -1), iter(params)
        for _ in self.config.widths:
            x = x @ next(left) + next(left)
            if self.config.normalisation != "none":
                x = normalise(x, next(left), next(left) if self.config.normalisation == "layer" else None)
            x = activate(self.config.activation, x)
        return x @ next(left) + next(left)


def _norm_tensors(kind: Normalisation, width: int) -> tuple[Tensor, ...]:
    return {"none": (), "rms": (gain(width),), "layer": (gain(width), bias(width))}[kind]
