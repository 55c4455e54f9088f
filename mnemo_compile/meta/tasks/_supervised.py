"""Networks that are trained on a data set."""

import math
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float, PRNGKeyArray

from ._family import AbstractFamily, AbstractFamilyConfig
from ._losses import Loss, LOSSES
from .data import AbstractData, Batch, Count, DataConfig, Split, SPLITS, TargetKind
from .networks import AbstractNetwork, Initialisation, initialise, NetworkConfig, Params, Tensor

Precision = Literal["float32", "bfloat16"]


class SupervisedConfig(AbstractFamilyConfig):
    """A network on data."""

    network: NetworkConfig
    data: DataConfig
    batch: Count = 64
    loss: Loss | None = None
    """By default cross-entropy for classes and the squared error for numbers."""
    label_noise: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    """Fraction of targets that are drawn anew each time they are seen, except in the validation split."""
    reconstructs: bool = False
    """Whether the inputs themselves are the targets: an autoencoder."""
    initialisation: Annotated[Initialisation, pydantic.Field(exclude_if=lambda value: value == "fan-in")] = "fan-in"
    """Omitted from a serialised config when it equals its default, so that older configs keep their digest."""
    activations: Annotated[Precision, pydantic.Field(exclude_if=lambda value: value == "float32")] = "float32"
    """Precision in which the network computes; parameters and the loss are float32. Omitted likewise."""

    def build(self) -> "Supervised":
        return Supervised(self)

    @property
    def target_kind(self) -> TargetKind:
        """What the network predicts."""
        return "numbers" if self.reconstructs else self.data.target_kind

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "SupervisedConfig":
        network, data = self.network.input_kind, self.data.input_kind
        if (network == "symbols") != (data == "symbols"):
            raise ValueError(f"network {self.network.kind!r} cannot read data {self.data.kind!r}")
        if network == "images" and data != "images":
            raise ValueError(f"network {self.network.kind!r} needs images, and {self.data.kind!r} has none")
        if self.reconstructs and network != "numbers":
            raise ValueError("reconstructs = true needs a network of numbers on numbers: an mlp")
        if self.loss is not None and self.loss not in LOSSES[self.target_kind]:
            raise ValueError(f"loss = {self.loss!r} does not fit targets that are {self.target_kind}")
        return self


class Supervised(AbstractFamily):
    """Prediction of targets, or of the inputs themselves."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    network: AbstractNetwork
    data: AbstractData
    config: SupervisedConfig = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    minimised: Loss = eqx.field(static=True)

    def __init__(self, config: SupervisedConfig):
        self.data = config.data.build()
        outputs = math.prod(self.data.input_shape) if config.reconstructs else self.data.outputs
        self.network = config.network.build(self.data.input_shape, outputs)
        self.tensors = initialise(self.network.tensors, config.initialisation)
        self.target_kind = config.target_kind
        self.minimised = config.loss or next(iter(LOSSES[self.target_kind]))
        self.config = config
        more = [f"b{config.batch}"] if config.batch != 64 else []
        more += [config.loss] if config.loss else []
        more += [f"noise{config.label_noise:g}"] if config.label_noise else []
        more += ["auto"] if config.reconstructs else []
        more += [config.initialisation] if config.initialisation != "fan-in" else []
        more += [config.activations] if config.activations != "float32" else []
        self.name = " ".join([self.network.name, self.data.name, *more])

    def draw(self, key: PRNGKeyArray) -> Any:
        return self.data.draw(key)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split) -> Batch:
        batch = self.data.batch(instance, key, split, self.config.batch)
        if self.config.reconstructs:
            return Batch(batch.inputs, batch.inputs.reshape(self.config.batch, -1))
        if not self.config.label_noise or split == "validation":
            return batch
        return self._with_label_noise(batch, jax.random.fold_in(key, len(SPLITS)))

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        return LOSSES[self.target_kind][self.minimised](self._outputs(params, batch), batch)

    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        if self.target_kind == "numbers":
            return jnp.array(jnp.nan)
        is_correct = jnp.argmax(self._outputs(params, batch), axis=-1) == batch.targets
        weight = jnp.ones(is_correct.shape) if batch.weight is None else batch.weight
        return jnp.sum(is_correct * weight) / jnp.maximum(jnp.sum(weight), 1)

    def _outputs(self, params: Params, batch: Batch) -> Float[Array, "batch ..."]:
        if self.config.activations == "float32":
            return self.network(params, batch.inputs)

        def lower(array: Array) -> Array:
            return array.astype(jnp.bfloat16) if jnp.issubdtype(array.dtype, jnp.floating) else array

        return self.network([lower(param) for param in params], lower(batch.inputs)).astype(jnp.float32)

    def _with_label_noise(self, batch: Batch, key: PRNGKeyArray) -> Batch:
        keys = jax.random.split(key)
        is_noise = jax.random.uniform(keys[0], batch.targets.shape) < self.config.label_noise
        if self.target_kind == "numbers":
            other: Array = jax.random.normal(keys[1], batch.targets.shape)
        else:
            other = jax.random.randint(keys[1], batch.targets.shape, 0, self.data.outputs)
        return batch._replace(targets=jnp.where(is_noise, other, batch.targets))
