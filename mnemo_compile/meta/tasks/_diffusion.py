"""Networks that take noise from examples, step by step."""

import math
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float, PRNGKeyArray

from ._family import AbstractFamily, AbstractFamilyConfig
from .data import AbstractData, Batch, Count, DataConfig, Split
from .networks import Params, perceive, perceptron, Tensor, Width

FREQUENCIES = 8
"""How many sines and as many cosines of the time the network reads."""


class DiffusionConfig(AbstractFamilyConfig):
    """A perceptron that sees an example under noise, and the time.

    It predicts the noise (Ho et al. 2020, arXiv 2006.11239), on the cosine schedule of Nichol and Dhariwal 2021 (arXiv
    2102.09672), or the velocity of a straight path to the noise (Lipman et al. 2022, arXiv 2210.02747).
    """

    kind: Literal["diffusion"]
    data: DataConfig
    predicts: Literal["noise", "velocity"] = "noise"
    widths: Annotated[tuple[Width, ...], pydantic.Field(min_length=1, max_length=8)] = (128, 128)
    batch: Count = 64

    def build(self) -> "Diffusion":
        return Diffusion(self)


class Diffusion(AbstractFamily):
    """The mean squared error of what is predicted."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: DiffusionConfig = eqx.field(static=True)
    data: AbstractData

    def __init__(self, config: DiffusionConfig):
        self.data = config.data.build()
        size = math.prod(self.data.input_shape)
        self.tensors = perceptron("net", [size + 2 * FREQUENCIES, *config.widths, size])
        widths = "x".join(map(str, config.widths))
        self.name = f"diffusion-{config.predicts}-{widths} {self.data.name} b{config.batch}"
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return self.data.draw(key)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split) -> Batch:
        size, keys = self.config.batch, jax.random.split(key, 3)
        clean = self.data.batch(instance, keys[0], split, size).inputs.reshape(size, -1)
        time = jax.random.uniform(keys[1], (size, 1))
        noise = jax.random.normal(keys[2], clean.shape)
        angle = 0.5 * jnp.pi * time
        if self.config.predicts == "noise":
            noisy, target = jnp.cos(angle) * clean + jnp.sin(angle) * noise, noise
        else:
            noisy, target = (1 - time) * clean + time * noise, noise - clean
        angles = angle * 2.0 ** jnp.arange(FREQUENCIES)
        return Batch(jnp.concatenate([noisy, jnp.sin(angles), jnp.cos(angles)], axis=1), target)

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        return jnp.mean(jnp.square(perceive(params, batch.inputs, jax.nn.silu) - batch.targets))

    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        return jnp.array(jnp.nan)
