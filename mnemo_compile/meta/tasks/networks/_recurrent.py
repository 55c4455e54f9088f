"""Recurrent networks on symbols."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..data import InputKind, Shape
from ._interface import AbstractNetwork, AbstractNetworkConfig, Params, Tensor, Width
from ._layers import bias, linear, matrix


class RecurrentConfig(AbstractNetworkConfig):
    """A recurrent network on symbols: with gates a GRU, else a plain tanh network."""

    kind: Literal["recurrent"] = "recurrent"
    width: Width
    gates: bool = True

    @property
    def input_kind(self) -> InputKind:
        return "symbols"

    def build(self, input_shape: Shape, outputs: int) -> "Recurrent":
        return Recurrent(self, input_shape, outputs)


class Recurrent(AbstractNetwork):
    """Logits for each place of a sequence of symbols; a GRU (Cho et al. 2014, arXiv 1406.1078), or its tanh alone."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: RecurrentConfig = eqx.field(static=True)

    def __init__(self, config: RecurrentConfig, input_shape: Shape, outputs: int):
        width, gates = config.width, 3 if config.gates else 1
        self.tensors = (
            Tensor((input_shape[1], width), 1.0, name="embedding.weight"),
            matrix("rnn.weight_ih", width, gates * width),
            bias("rnn.bias", gates * width),
            matrix("rnn.weight_hh", width, gates * width),
            *linear("head", width, outputs),
        )
        self.name = f"{'gru' if config.gates else 'rnn'}-{width}"
        self.config = config

    def __call__(self, params: Params, inputs: Int[Array, "batch place"]) -> Float[Array, "batch place outputs"]:
        embedding, enter, shift, again, head, head_bias = params
        entered = embedding[inputs] @ enter + shift

        def step(state: Array, x: Array) -> tuple[Array, Array]:
            recurrent = state @ again
            if self.config.gates:
                (x_update, x_reset, x_new), (update, reset, new) = (jnp.split(y, 3, axis=-1) for y in (x, recurrent))
                gate = jax.nn.sigmoid(x_update + update + 1)
                new = jnp.tanh(x_new + jax.nn.sigmoid(x_reset + reset) * new)
                state = gate * state + (1 - gate) * new
            else:
                state = jnp.tanh(x + recurrent)
            return state, state

        start = jnp.zeros((inputs.shape[0], self.config.width), entered.dtype)
        _, states = jax.lax.scan(step, start, entered.swapaxes(0, 1))
        return states.swapaxes(0, 1) @ head + head_bias
