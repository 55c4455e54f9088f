"""Contrastive learning of representations."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float, PRNGKeyArray

from ._family import AbstractFamily, AbstractFamilyConfig
from .data import AbstractData, Batch, Count, DataConfig, Split
from .networks import AbstractNetwork, NetworkConfig, Params, Tensor, Width


class ContrastiveConfig(AbstractFamilyConfig):
    """Two views of each image are to be nearer to each other than to those of other images.

    SimCLR (Chen et al. 2020, arXiv 2002.05709); the network's outputs are the projection.
    """

    kind: Literal["contrastive"]
    network: NetworkConfig
    data: DataConfig
    dimension: Width = 16
    """Of the projection."""
    temperature: Annotated[float, pydantic.Field(gt=0, le=10)] = 0.5
    batch: Count = 64

    def build(self) -> "Contrastive":
        return Contrastive(self)

    @pydantic.model_validator(mode="after")
    def _reads_images(self) -> "ContrastiveConfig":
        if self.data.input_kind != "images" or self.network.input_kind == "symbols":
            raise ValueError(f"kind = 'contrastive' needs images and a network that reads them, not {self.data.kind!r}")
        return self


class Contrastive(AbstractFamily):
    """The cross-entropy of the other view's place among all views: equation 1 of the paper."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: ContrastiveConfig = eqx.field(static=True)
    network: AbstractNetwork
    data: AbstractData

    def __init__(self, config: ContrastiveConfig):
        self.data = config.data.build()
        self.network = config.network.build(self.data.input_shape, config.dimension)
        self.tensors = self.network.tensors
        self.name = f"contrastive-{config.dimension} {self.network.name} {self.data.name} b{config.batch}"
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return self.data.draw(key)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split) -> Batch:
        keys = jax.random.split(key, 3)
        images = self.data.batch(instance, keys[0], split, self.config.batch).inputs
        return Batch(_view(images, keys[1]), _view(images, keys[2]))

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        scores, partner = self._scores(params, batch)
        return -jnp.mean(jnp.sum(partner * jax.nn.log_softmax(scores), axis=-1))

    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        scores, partner = self._scores(params, batch)
        return jnp.mean(jnp.argmax(scores, axis=-1) == jnp.argmax(partner, axis=-1))

    def _scores(self, params: Params, batch: Batch) -> tuple[Float[Array, "views views"], Float[Array, "views views"]]:
        """The similarity of each pair of views over the temperature, and 1 where the two are of one image."""
        count = batch.inputs.shape[0]
        outputs = self.network(params, jnp.concatenate([batch.inputs, batch.targets]))
        projections = outputs * jax.lax.rsqrt(jnp.sum(jnp.square(outputs), axis=-1, keepdims=True) + 1e-6)
        is_self, partner = jnp.eye(2 * count), jnp.roll(jnp.eye(2 * count), count, axis=0)
        return projections @ projections.T / self.config.temperature - 1e9 * is_self, partner


def _view(images: Float[Array, "batch rows columns *channels"], key: PRNGKeyArray) -> Array:
    """A random view: moved by a pixel or none, of another contrast, with noise and a quarter of the pixels erased."""
    keys = jax.random.split(key, 4)
    each = (images.shape[0], *[1] * (images.ndim - 1))
    moved = jax.vmap(lambda image, by: jnp.roll(image, by, axis=(0, 1)))(
        images, jax.random.randint(keys[0], (images.shape[0], 2), -1, 2)
    )
    contrast = jax.random.uniform(keys[1], each, minval=0.6, maxval=1.4)
    noisy = contrast * moved + 0.2 * jax.random.normal(keys[2], images.shape)
    return noisy * jax.random.bernoulli(keys[3], 0.75, images.shape)
