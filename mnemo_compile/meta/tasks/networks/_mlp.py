"""Multilayer perceptrons."""

import math
from typing import Literal

import equinox as eqx
from jaxtyping import Array, Float

from ..data import InputKind, Shape
from ._interface import AbstractNetwork, AbstractNetworkConfig, Params, Tensor, Width
from ._layers import activate, Activation, linear, norm, normalise

Normalisation = Literal["none", "layer", "rms"]
_NORM_TENSORS: dict[Normalisation, int] = {"none": 0, "rms": 1, "layer": 2}
"""How many tensors a normalisation has: a root-mean-square one has no bias."""


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
        for place, wide in enumerate(config.widths):
            tensors += linear(f"mlp.{place}", width, wide)
            tensors += norm(f"norms.{place}", wide)[: _NORM_TENSORS[config.normalisation]]
            width = wide
        self.tensors = (*tensors, *linear("head", width, outputs))
        suffix = "" if config.normalisation == "none" else f"-{config.normalisation}"
        self.name = f"mlp-{'x'.join(map(str, config.widths)) or 'linear'}-{config.activation}{suffix}"
        self.config = config

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        x, left = inputs.reshape(inputs.shape[0], -1), iter(params)
        for _ in self.config.widths:
            x = x @ next(left) + next(left)
            if self.config.normalisation != "none":
                x = normalise(x, next(left), next(left) if self.config.normalisation == "layer" else None)
            x = activate(self.config.activation, x)
        return x @ next(left) + next(left)
