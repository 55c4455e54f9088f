"""Vision Transformers (Dosovitskiy et al. 2021, arXiv 2010.11929)."""

from typing import Annotated, Literal

import equinox as eqx
import pydantic
from jaxtyping import Array, Float

from ..data import InputKind, Shape
from ._attention import AbstractAttentionConfig, attend, blocks
from ._images import patches, patches_of
from ._interface import AbstractNetwork, Params, Tensor
from ._layers import linear, norm, normalise


class ViTConfig(AbstractAttentionConfig):
    """A pre-norm Vision Transformer."""

    kind: Literal["vit"] = "vit"
    patch: Annotated[int, pydantic.Field(ge=1, le=16)] = 2
    """Side of a patch."""

    @property
    def input_kind(self) -> InputKind:
        return "images"

    def build(self, input_shape: Shape, outputs: int) -> "ViT":
        return ViT(self, input_shape, outputs)


class ViT(AbstractNetwork):
    """The mean over patches takes the place of a class token."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: ViTConfig = eqx.field(static=True)

    def __init__(self, config: ViTConfig, input_shape: Shape, outputs: int):
        width = config.width
        places, numbers = patches_of(input_shape, config.patch)
        self.tensors = (
            *linear("patch_embedding", numbers, width),
            Tensor((places, width), 0.02, name="position_embedding"),
            *blocks(width, config.depth),
            *norm("norm", width),
            *linear("head", width, outputs),
        )
        self.name = f"vit-{width}x{config.depth}"
        self.config = config

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        enter, shift, positions = params[:3]
        x = patches(inputs, self.config.patch) @ enter + shift + positions
        x = attend(x, params[3:-4], self.config.heads, causal=False)
        gain, bias, head, head_bias = params[-4:]
        return normalise(x, gain, bias).mean(axis=1) @ head + head_bias
