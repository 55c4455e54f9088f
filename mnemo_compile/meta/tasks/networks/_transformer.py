"""Transformers on symbols (Vaswani et al. 2017, arXiv 1706.03762)."""

from typing import Literal

import equinox as eqx
from jaxtyping import Array, Float, Int

from ..data import InputKind, Shape
from ._attention import AbstractAttentionConfig, attend, blocks
from ._interface import AbstractNetwork, Params, Tensor
from ._layers import linear, norm, normalise


class TransformerConfig(AbstractAttentionConfig):
    """A pre-norm Transformer on symbols: a decoder, or an encoder."""

    kind: Literal["transformer"] = "transformer"
    causal: bool = True
    """Whether a place sees only itself and the places before it, as in a decoder."""

    @property
    def input_kind(self) -> InputKind:
        return "symbols"

    def build(self, input_shape: Shape, outputs: int) -> "Transformer":
        return Transformer(self, input_shape, outputs)


class Transformer(AbstractNetwork):
    """Logits for each place of a sequence of symbols."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: TransformerConfig = eqx.field(static=True)

    def __init__(self, config: TransformerConfig, input_shape: Shape, outputs: int):
        places, symbols = input_shape
        width = config.width
        self.tensors = (
            Tensor((symbols, width), 0.02, name="token_embedding.weight"),
            Tensor((places, width), 0.02, name="position_embedding.weight"),
            *blocks(width, config.depth),
            *norm("norm", width),
            *linear("head", width, outputs),
        )
        self.name = f"{'decoder' if config.causal else 'encoder'}-{width}x{config.depth}"
        self.config = config

    def __call__(self, params: Params, inputs: Int[Array, "batch place"]) -> Float[Array, "batch place outputs"]:
        x = params[0][inputs] + params[1]
        x = attend(x, params[2:-4], self.config.heads, causal=self.config.causal)
        gain, bias, head, head_bias = params[-4:]
        return normalise(x, gain, bias) @ head + head_bias
