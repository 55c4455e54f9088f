"""Arithmetic modulo a number, as symbols."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import PRNGKeyArray

from ._interface import AbstractData, AbstractDataConfig, Batch, InputKind, Shape, Split, split_key, TargetKind


class ModularConfig(AbstractDataConfig):
    """a ∘ b modulo a number, as three symbols: a, b and a question mark, at which the result is predicted."""

    kind: Literal["modular"] = "modular"
    modulus: Annotated[int, pydantic.Field(ge=2, le=1024)] = 31
    operation: Literal["sum", "product"] = "sum"

    @property
    def input_kind(self) -> InputKind:
        return "symbols"

    @property
    def target_kind(self) -> TargetKind:
        return "classes"

    def build(self) -> "Modular":
        return Modular(self)


class Modular(AbstractData):
    """Each task has its own names of the numbers. There are so few examples that all splits hold the same ones."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    config: ModularConfig = eqx.field(static=True)

    def __init__(self, config: ModularConfig):
        self.name = f"modular-{config.operation}-{config.modulus}"
        self.input_shape = (3, config.modulus + 1)
        self.outputs = config.modulus
        self.target_kind = config.target_kind
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.permutation(key, self.config.modulus)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        modulus = self.config.modulus
        terms = jax.random.randint(split_key(key, split), (2, size), 0, modulus)
        result = (terms[0] + terms[1] if self.config.operation == "sum" else terms[0] * terms[1]) % modulus
        question = jnp.full((size,), modulus)
        targets = jnp.broadcast_to(instance[result][:, None], (size, 3))
        weight = jnp.broadcast_to(jnp.array([0.0, 0.0, 3.0]), (size, 3))
        return Batch(jnp.stack([instance[terms[0]], instance[terms[1]], question], axis=1), targets, weight)
