"""Variational autoencoders."""

import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._family import AbstractFamily, AbstractFamilyConfig
from .data import AbstractData, Batch, Count, DataConfig, Split
from .networks import linear, Params, perceive, perceptron, Tensor, Width


class VariationalConfig(AbstractFamilyConfig):
    """A variational autoencoder (Kingma and Welling 2013, arXiv 1312.6114) with a hidden layer on either side.

    With several samples it is an importance-weighted autoencoder (Burda et al. 2015, arXiv 1509.00519).
    """

    kind: Literal["variational"]
    data: DataConfig
    width: Width = 128
    latent: Width = 8
    samples: Count = 1
    batch: Count = 64

    def build(self) -> "Variational":
        return Variational(self)


class Variational(AbstractFamily):
    """The negative bound of the log-likelihood per number, without its constant, for outputs of variance 1."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: VariationalConfig = eqx.field(static=True)
    data: AbstractData

    def __init__(self, config: VariationalConfig):
        self.data = config.data.build()
        size, width, latent = math.prod(self.data.input_shape), config.width, config.latent
        self.tensors = (
            *linear("encoder.0", size, width),
            *linear("mean", width, latent),
            # The posterior starts near a deviation of 1.
            *linear("log_variance", width, latent, 0.1),
            *perceptron("decoder", [latent, width, size]),
        )
        what = f"iwae{config.samples}" if config.samples > 1 else "vae"
        self.name = f"{what}-{width}-{latent} {self.data.name} b{config.batch}"
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return self.data.draw(key)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split) -> Batch:
        c, keys = self.config, jax.random.split(key)
        numbers = self.data.batch(instance, keys[0], split, c.batch).inputs.reshape(c.batch, -1)
        return Batch(numbers, numbers, jax.random.normal(keys[1], (c.samples, c.batch, c.latent)))

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        noise = batch.weight
        assert noise is not None
        hidden = jax.nn.relu(batch.inputs @ params[0] + params[1])
        mean, log_deviation = hidden @ params[2] + params[3], 0.5 * (hidden @ params[4] + params[5])
        latent = mean + jnp.exp(log_deviation) * noise
        outputs = perceive(params[6:], latent, jax.nn.relu)
        error = 0.5 * jnp.sum(jnp.square(outputs - batch.targets), axis=-1)
        # The logarithm of the posterior's density over the prior's, at the sample.
        excess = jnp.sum(0.5 * (jnp.square(latent) - jnp.square(noise)) - log_deviation, axis=-1)
        bound = jax.nn.logsumexp(-error - excess, axis=0) - jnp.log(self.config.samples)
        return -jnp.mean(bound) / batch.inputs.shape[-1]

    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        return jnp.array(jnp.nan)
