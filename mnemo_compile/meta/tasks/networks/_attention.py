"""The block of a Transformer: attention, then a network at each place."""

import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float

from ._interface import AbstractNetworkConfig, Depth, Params, Tensor, Width
from ._layers import linear, norm, normalise

BLOCK_TENSORS = 12
"""How many tensors a block has."""
LOOPED = 8
"""From this depth on, compiling each block by itself would take longer than it saves."""


class AbstractAttentionConfig(AbstractNetworkConfig):
    """The sizes of a stack of blocks."""

    width: Width
    depth: Depth = 1
    heads: Width = 2

    @pydantic.model_validator(mode="after")
    def _heads_divide_width(self) -> "AbstractAttentionConfig":
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} must divide width = {self.width}")
        return self


def blocks(width: int, depth: int) -> tuple[Tensor, ...]:
    """The tensors of a stack of blocks. In deep networks the branches start small."""
    small = (2 * depth) ** -0.5
    return tuple(tensor for place in range(depth) for tensor in _block(f"blocks.{place}", width, small))


def _block(name: str, width: int, small: float) -> tuple[Tensor, ...]:
    return (
        *norm(f"{name}.norm1", width),
        *linear(f"{name}.attention.qkv", width, 3 * width),
        *linear(f"{name}.attention.out", width, width, small),
        *norm(f"{name}.norm2", width),
        *linear(f"{name}.mlp.up", width, 4 * width),
        *linear(f"{name}.mlp.down", 4 * width, width, small),
    )


def attend(
    x: Float[Array, "batch place width"], params: Params, heads: int, *, causal: bool
) -> Float[Array, "batch place width"]:
    """A stack of pre-norm blocks. Of many, one is compiled."""
    if len(params) < LOOPED * BLOCK_TENSORS:
        for start in range(0, len(params), BLOCK_TENSORS):
            x = _attend(x, params[start : start + BLOCK_TENSORS], heads, causal)
        return x
    stacked = [jnp.stack(params[place::BLOCK_TENSORS]) for place in range(BLOCK_TENSORS)]
    return jax.lax.scan(lambda x, block: (_attend(x, block, heads, causal), None), x, stacked)[0]


def _attend(
    x: Float[Array, "batch place width"], params: Params, heads: int, causal: bool
) -> Float[Array, "batch place width"]:
    gain1, bias1, qkv, qkv_bias, out, out_bias, gain2, bias2, up, up_bias, down, down_bias = params
    projected = (normalise(x, gain1, bias1) @ qkv + qkv_bias).reshape(*x.shape[:2], 3, heads, -1)
    q, k, v = projected[:, :, 0], projected[:, :, 1], projected[:, :, 2]
    scores = jnp.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -1e9)
    attended = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(scores), v).reshape(x.shape)
    x = x + attended @ out + out_bias
    return x + jax.nn.gelu(normalise(x, gain2, bias2) @ up + up_bias) @ down + down_bias
