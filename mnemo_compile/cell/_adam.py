"""Adam as a cell: the optimizer that everyone can check."""

from typing import Annotated, Literal

import equinox as eqx
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float

from ..step import MemorySlot
from ._config import AbstractCellConfig, register_cell
from ._interface import AbstractCell
from ._moments import sum_of_squares
from ._records import Chunks, Rows, Tensors

LEAST = 2.0**-126
"""Float32's least normal number. Under a root, it keeps meta-gradients finite where a coordinate has no gradient."""

Discount = Annotated[float, pydantic.Field(ge=0, lt=1)]


@register_cell
class AdamConfig(AbstractCellConfig):
    """The settings of Adam, with the names of the paper."""

    kind: Literal["adam"] = "adam"
    learning_rate: Annotated[float, pydantic.Field(gt=0, le=10)] = 1e-3
    beta1: Discount = 0.9
    beta2: Discount = 0.999
    epsilon: Annotated[float, pydantic.Field(gt=0, le=1)] = 1e-8

    def build(self) -> "Adam":
        return Adam(self)


class Adam(AbstractCell):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1), with the decoupled weight decay of AdamW in the step.

    The weights are 1 − β instead of the paper's β, because float32 stores 1 − β more precisely where β is close to 1.
    """

    learning_rate: Float[Array, ""]
    first_gap: Float[Array, ""]
    """1 − β₁"""
    second_gap: Float[Array, ""]
    """1 − β₂"""
    epsilon: Float[Array, ""]
    config: AdamConfig = eqx.field(static=True)
    chunk_length: int = eqx.field(static=True)
    sample_chunks: int = eqx.field(static=True)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(static=True)

    def __init__(self, config: AdamConfig):
        self.learning_rate = jnp.array(config.learning_rate)
        self.first_gap = jnp.array(1 - config.beta1)
        self.second_gap = jnp.array(1 - config.beta2)
        self.epsilon = jnp.array(config.epsilon)
        self.config = config
        self.chunk_length = config.chunk_length
        self.sample_chunks = config.sample_chunks
        self.memory_slots = (MemorySlot("first"), MemorySlot("second"))

    def initial_state(self) -> dict[str, Float[Array, "..."]]:
        return {"first_weight": jnp.zeros(()), "second_weight": jnp.zeros(())}

    def measure(
        self, param: Float[Array, "chunks length"], grad: Float[Array, "chunks length"]
    ) -> dict[str, Float[Array, " chunks"]]:
        return {"square": sum_of_squares(grad)}

    def recall(
        self, tensors: Tensors
    ) -> tuple[dict[str, Float[Array, "tensors ..."]], dict[str, Float[Array, "tensors ..."]]]:
        # 1 − βᵗ, summed step by step.
        first, second = tensors.state["first_weight"], tensors.state["second_weight"]
        first, second = first + self.first_gap * (1 - first), second + self.second_gap * (1 - second)
        context = {"unbias_first": 1 / first, "unbias_second": 1 / second}
        return context, {"first_weight": first, "second_weight": second}

    def decode(
        self, chunks: Chunks, context: Rows
    ) -> tuple[Float[Array, "chunks length"], dict[str, Float[Array, "chunks ..."]]]:
        grad, first, second = chunks.grad, chunks.memory["first"], chunks.memory["second"]
        first = first + self.first_gap * (grad - first)
        second = second + self.second_gap * (grad * grad - second)
        unbiased_first = first * context["unbias_first"][:, None]
        unbiased_second = second * context["unbias_second"][:, None]
        root = jnp.sqrt(unbiased_second + LEAST)
        direction = self.learning_rate * (unbiased_first / (root + self.epsilon))
        return direction, {"first": first, "second": second}

    def decay(self, context: Rows, clock: Rows) -> Float[Array, " rows"]:
        return jnp.broadcast_to(self.learning_rate, clock["step"].shape)
