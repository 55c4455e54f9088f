"""The coordinate-wise LSTM optimizer, the baseline of the field."""

import math
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float

from ..step import MemorySlot
from ._config import AbstractCellConfig, register_cell, Size
from ._interface import AbstractCell
from ._moments import sum_of_squares
from ._records import Chunks, Rows


@register_cell
class LSTMConfig(AbstractCellConfig):
    """The settings of the LSTM optimizer; the defaults are the paper's."""

    kind: Literal["lstm"] = "lstm"
    hidden: Size = 20
    """Units of each of the two layers."""
    preprocessing: Annotated[float, pydantic.Field(gt=0, le=20)] = 10.0
    """p of the gradient's preprocessing. Gradients below e⁻ᵖ enter linearly."""
    output_scale: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.1
    """Factor between the network's output and the step."""

    def build(self) -> "LSTM":
        return LSTM(self)


class LSTMLayer(eqx.Module):
    """An LSTM layer (Hochreiter and Schmidhuber 1997) applied to each coordinate on its own."""

    input: Float[Array, "gates inputs"]
    recurrent: Float[Array, "gates hidden"]
    bias: Float[Array, " gates"]

    def __init__(self, inputs: int, hidden: int, *, key: Array):
        keys = jax.random.split(key)
        bound = 1 / math.sqrt(hidden)
        self.input = jax.random.uniform(keys[0], (4 * hidden, inputs), minval=-bound, maxval=bound)
        self.recurrent = jax.random.uniform(keys[1], (4 * hidden, hidden), minval=-bound, maxval=bound)
        # The forget gate starts open.
        self.bias = jnp.zeros(4 * hidden).at[hidden : 2 * hidden].set(1.0)

    def __call__(
        self,
        inputs: Float[Array, "chunks length inputs"],
        hidden: Float[Array, "chunks length hidden"],
        carried: Float[Array, "chunks length hidden"],
    ) -> tuple[Float[Array, "chunks length hidden"], Float[Array, "chunks length hidden"]]:
        """The next hidden and carried state."""
        gates = jnp.einsum("gi,cli->clg", self.input, inputs) + jnp.einsum("gh,clh->clg", self.recurrent, hidden)
        enter, forget, new, leave = jnp.split(gates + self.bias, 4, axis=2)
        carried = jax.nn.sigmoid(forget) * carried + jax.nn.sigmoid(enter) * jnp.tanh(new)
        return jax.nn.sigmoid(leave) * jnp.tanh(carried), carried


class LSTM(AbstractCell):
    """Learning to learn by gradient descent by gradient descent (Andrychowicz et al. 2016, arXiv 1606.04474).

    Two LSTM layers with shared weights run on every coordinate, after the preprocessing of the paper's appendix A and
    before a linear output. The state has 320 bytes per parameter, and the step depends on the scale of the loss.
    """

    first: LSTMLayer
    second: LSTMLayer
    output: Float[Array, " hidden"]
    config: LSTMConfig = eqx.field(static=True)
    chunk_length: int = eqx.field(static=True)
    sample_chunks: int = eqx.field(static=True)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(static=True)

    def __init__(self, config: LSTMConfig):
        keys = jax.random.split(jax.random.key(config.seed), 3)
        self.first = LSTMLayer(2, config.hidden, key=keys[0])
        self.second = LSTMLayer(config.hidden, config.hidden, key=keys[1])
        self.output = jax.random.normal(keys[2], (config.hidden,)) / math.sqrt(config.hidden)
        self.config = config
        self.chunk_length = config.chunk_length
        self.sample_chunks = config.sample_chunks
        slots = ("first_hidden", "first_carried", "second_hidden", "second_carried")
        self.memory_slots = tuple(MemorySlot(name, (config.hidden,)) for name in slots)

    def measure(
        self, param: Float[Array, "chunks length"], grad: Float[Array, "chunks length"]
    ) -> dict[str, Float[Array, " chunks"]]:
        return {"square": sum_of_squares(grad)}

    def decode(
        self, chunks: Chunks, context: Rows
    ) -> tuple[Float[Array, "chunks length"], dict[str, Float[Array, "chunks ..."]]]:
        memory, features = chunks.memory, preprocessed(chunks.grad, self.config.preprocessing)
        first_hidden, first_carried = self.first(features, memory["first_hidden"], memory["first_carried"])
        second_hidden, second_carried = self.second(first_hidden, memory["second_hidden"], memory["second_carried"])
        # The paper adds the output to the parameter; a direction is subtracted from it.
        direction = jnp.einsum("clh,h->cl", second_hidden, -self.config.output_scale * self.output)
        return direction, {
            "first_hidden": first_hidden,
            "first_carried": first_carried,
            "second_hidden": second_hidden,
            "second_carried": second_carried,
        }


def preprocessed(grad: Float[Array, "chunks length"], p: float) -> Float[Array, "chunks length two"]:
    """(log |g| / p, sign g) where |g| ≥ e⁻ᵖ, and (−1, eᵖ g) below that: magnitude and sign at any scale."""
    threshold = math.exp(-p)
    is_large = jnp.abs(grad) >= threshold
    magnitude = jnp.where(is_large, jnp.log(jnp.maximum(jnp.abs(grad), threshold)) / p, -1.0)
    sign = jnp.where(is_large, jnp.sign(grad), grad * math.exp(p))
    return jnp.stack([magnitude, sign], axis=2)
