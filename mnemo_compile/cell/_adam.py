"""Adam as a cell: the optimizer that everyone can check."""

from collections.abc import Mapping
from typing import Annotated, Literal

import equinox as eqx
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Bool, Float

from ._abstract import AbstractCell, MemorySlot, Rows
from ._config import AbstractCellConfig, register_cell
from ._moments import sum_of_squares

Discount = Annotated[float, pydantic.Field(ge=0, lt=1)]


@register_cell
class AdamConfig(AbstractCellConfig):
    """Adam's settings, by the names of its paper."""

    kind: Literal["adam"] = "adam"
    learning_rate: Annotated[float, pydantic.Field(gt=0, le=10)] = 1e-3
    beta1: Discount = 0.9
    beta2: Discount = 0.999
    epsilon: Annotated[float, pydantic.Field(gt=0, le=1)] = 1e-8

    def build(self) -> "Adam":
        return Adam(self)


class Adam(AbstractCell):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1), with the weight decay of AdamW decoupled by the step.

    What the paper says with β is said with 1 − β, which float32 holds to its last bits where β is close to 1.
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

    def measure(self, grad: Float[Array, "chunks length"]) -> dict[str, Float[Array, " chunks"]]:
        return {"square": sum_of_squares(grad)}

    def encode(
        self,
        param: Float[Array, "chunks length"],
        grad: Float[Array, "chunks length"],
        memory: Mapping[str, Float[Array, "chunks ..."]],
        valid: Bool[Array, "chunks length"],
        moments: Rows,
        facts: Rows,
        state: Rows,
    ) -> dict[str, Float[Array, "chunks ..."]]:
        return {}

    def share(
        self, summary: Rows, moments: Rows, facts: Rows, clock: Rows, state: Rows
    ) -> dict[str, Float[Array, "tensors ..."]]:
        return {}

    def recall(
        self, summary: Rows, network: Rows, moments: Rows, facts: Rows, clock: Rows, state: Rows
    ) -> tuple[dict[str, Float[Array, "tensors ..."]], dict[str, Float[Array, "tensors ..."]]]:
        # 1 − βᵗ, as the sum that it is.
        first = state["first_weight"] + self.first_gap * (1 - state["first_weight"])
        second = state["second_weight"] + self.second_gap * (1 - state["second_weight"])
        context = {"unbias_first": 1 / first, "unbias_second": 1 / second}
        return context, {"first_weight": first, "second_weight": second}

    def decode(
        self,
        param: Float[Array, "chunks length"],
        grad: Float[Array, "chunks length"],
        memory: Mapping[str, Float[Array, "chunks ..."]],
        valid: Bool[Array, "chunks length"],
        context: Rows,
    ) -> tuple[Float[Array, "chunks length"], dict[str, Float[Array, "chunks ..."]]]:
        first = memory["first"] + self.first_gap * (grad - memory["first"])
        second = memory["second"] + self.second_gap * (grad * grad - memory["second"])
        unbiased_first = first * context["unbias_first"][:, None]
        unbiased_second = second * context["unbias_second"][:, None]
        direction = unbiased_first / (jnp.sqrt(unbiased_second) + self.epsilon)
        return direction, {"first": first, "second": second}

    def scale(self, context: Rows, spread: Rows) -> Float[Array, " tensors"]:
        return jnp.broadcast_to(self.learning_rate, context["unbias_first"].shape)
