"""Convolutional networks from an image to an image (DnCNN; Zhang et al. 2016, arXiv 1608.03981)."""

from typing import Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ..data import InputKind, Shape
from ._conv import neighbourhoods
from ._images import channels_of, with_channels
from ._interface import AbstractNetwork, AbstractNetworkConfig, Depth, Params, Tensor, Width
from ._layers import bias, norm, normalise


class DenoiserConfig(AbstractNetworkConfig):
    """3×3 convolutions at full resolution; those in the middle are normalised."""

    kind: Literal["denoiser"] = "denoiser"
    width: Width
    depth: Depth = 4
    """Number of convolutions."""

    @property
    def input_kind(self) -> InputKind:
        return "images"

    def build(self, input_shape: Shape, outputs: int) -> "Denoiser":
        return Denoiser(self, channels_of(input_shape))


class Denoiser(AbstractNetwork):
    """The outputs are numbers of an image of the inputs' shape.

    Channels are normalised at each place, where the paper normalises each channel over the batch.
    """

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    depth: int = eqx.field(static=True)

    def __init__(self, config: DenoiserConfig, channels: int):
        widths, tensors = [channels, *[config.width] * (config.depth - 1), channels], []
        for place, (inner, outer) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            gain = 2**0.5 if place else 1.0
            tensors += [
                Tensor((3, 3, inner, outer), gain * (9 * inner) ** -0.5, name=f"convs.{place}.kernel"),
                bias(f"convs.{place}.bias", outer),
            ]
            if 0 < place < config.depth - 1:
                tensors += norm(f"norms.{place}", outer)
        self.tensors = tuple(tensors)
        self.name = f"denoiser-{config.width}x{config.depth}"
        self.depth = config.depth

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        x, left = with_channels(inputs), iter(params)
        for place in range(self.depth):
            kernel, shift = next(left), next(left)
            x = neighbourhoods(x) @ kernel.reshape(-1, kernel.shape[-1]) + shift
            if 0 < place < self.depth - 1:
                x = normalise(x, next(left), next(left))
            x = jax.nn.relu(x) if place < self.depth - 1 else x
        return x.reshape(x.shape[0], -1)
