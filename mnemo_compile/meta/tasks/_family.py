"""Families of tasks: networks of one shape on one kind of data, and what is minimised."""

import abc
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float, PRNGKeyArray

from ._bundled import BundledConfig, PatchesConfig, SourceConfig
from ._data import AbstractData, Batch, Count, Part, PARTS
from ._networks import AbstractNetwork, NetworkConfig, Params, Tensor
from ._procedures import (
    ClustersConfig,
    MarkovConfig,
    ModularConfig,
    ParityConfig,
    RearrangedConfig,
    ShapesConfig,
    SignalsConfig,
    TeacherConfig,
)

DataConfig = Annotated[
    BundledConfig
    | SourceConfig
    | PatchesConfig
    | ClustersConfig
    | TeacherConfig
    | MarkovConfig
    | SignalsConfig
    | ShapesConfig
    | ModularConfig
    | ParityConfig
    | RearrangedConfig,
    pydantic.Field(discriminator="kind"),
]

Loss = Literal["cross-entropy", "focal", "hinge", "squared", "huber", "absolute"]
OF_NUMBERS: tuple[Loss, ...] = ("squared", "huber", "absolute")


class AbstractFamily(eqx.Module):
    """Tasks of one shape, so that many run in one program. Arrays among its fields are data."""

    name: eqx.AbstractVar[str]
    tensors: eqx.AbstractVar[tuple[Tensor, ...]]
    """The parameters, and what they start from."""

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray) -> Any:
        """What one task has of its own."""

    @abc.abstractmethod
    def batch(self, instance: Any, key: PRNGKeyArray, part: Part) -> Batch:
        """A batch of a part of the data; the same for the same key."""

    @abc.abstractmethod
    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        """The mean loss of a batch."""

    @abc.abstractmethod
    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        """Share of classes or symbols that are told rightly; not a number where there are none."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the parameters."""
        return tuple(tensor.shape for tensor in self.tensors)


class SupervisedConfig(pydantic.BaseModel):
    """A network on data."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    network: NetworkConfig
    data: DataConfig
    batch: Count = 64
    loss: Loss | None = None
    """Cross-entropy for classes and squared error for numbers, where it is not named."""
    label_noise: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    """Share of targets that are drawn anew, each time they are seen; held-out ones are as they are."""
    reconstructs: bool = False
    """Whether the inputs themselves are the targets: an autoencoder."""

    def build(self) -> "Supervised":
        return Supervised(self)

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "SupervisedConfig":
        tokens, takes_tokens = self.data.reads == "symbols", self.network.kind in ("transformer", "recurrent")
        if tokens != takes_tokens:
            raise ValueError(f"network {self.network.kind!r} cannot read data {self.data.kind!r}")
        images, takes_images = self.data.reads == "images", self.network.kind in ("conv", "vit", "mixer")
        if takes_images and not images:
            raise ValueError(f"network {self.network.kind!r} needs images, and {self.data.kind!r} has none")
        if self.reconstructs and (tokens or takes_images):
            raise ValueError("reconstructs = true needs a network of numbers on numbers: an mlp")
        numbers = self.reconstructs or self.data.tells == "numbers"
        if self.loss is not None and numbers != (self.loss in OF_NUMBERS):
            raise ValueError(
                f"loss = {self.loss!r} does not fit targets that are {'numbers' if numbers else 'classes'}"
            )
        return self


class Supervised(AbstractFamily):
    """Prediction of targets, or of the inputs themselves."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    network: AbstractNetwork
    data: AbstractData
    config: SupervisedConfig = eqx.field(static=True)
    minimised: Loss = eqx.field(static=True)

    def __init__(self, config: SupervisedConfig):
        self.data = config.data.build()
        size = 1
        for axis in self.data.inputs:
            size *= axis
        outputs = size if config.reconstructs else self.data.outputs
        self.network = config.network.build(self.data.inputs, outputs)
        self.tensors = self.network.tensors
        is_numbers = config.reconstructs or self.data.kind == "numbers"
        self.minimised = config.loss or ("squared" if is_numbers else "cross-entropy")
        self.config = config
        more = [f"b{config.batch}"] if config.batch != 64 else []
        more += [config.loss] if config.loss else []
        more += [f"noise{config.label_noise:g}"] if config.label_noise else []
        more += ["auto"] if config.reconstructs else []
        self.name = " ".join([self.network.name, self.data.name, *more])

    def draw(self, key: PRNGKeyArray) -> Any:
        return self.data.draw(key)

    def batch(self, instance: Any, key: PRNGKeyArray, part: Part) -> Batch:
        batch = self.data.batch(instance, key, part, self.config.batch)
        if self.config.reconstructs:
            return Batch(batch.inputs, batch.inputs.reshape(self.config.batch, -1))
        if not self.config.label_noise or part == "held_out":
            return batch
        keys = jax.random.split(jax.random.fold_in(key, len(PARTS)))
        is_noise = jax.random.uniform(keys[0], batch.targets.shape) < self.config.label_noise
        if self.minimised in OF_NUMBERS:
            other = jax.random.normal(keys[1], batch.targets.shape)
        else:
            other = jax.random.randint(keys[1], batch.targets.shape, 0, self.data.outputs)
        return batch._replace(targets=jnp.where(is_noise, other, batch.targets))

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        outputs = self.network(params, batch.inputs)
        if self.minimised == "squared":
            return 0.5 * jnp.mean(jnp.square(outputs - batch.targets))
        if self.minimised == "huber":
            size = jnp.abs(outputs - batch.targets)
            return jnp.mean(jnp.where(size < 1, 0.5 * size * size, size - 0.5))
        if self.minimised == "absolute":
            return jnp.mean(jnp.abs(outputs - batch.targets))
        # A sum over classes and not a lookup: of that, many at once are slow.
        target = jax.nn.one_hot(batch.targets, outputs.shape[-1], dtype=outputs.dtype)
        if self.minimised == "hinge":
            # Crammer and Singer 2001: the highest other score, and the margin that is short of one.
            right = jnp.sum(target * outputs, axis=-1)
            short = jnp.maximum(1 + jnp.max(outputs - 1e9 * target, axis=-1) - right, 0)
            return jnp.mean(short if batch.weight is None else short * batch.weight)
        surprise = -jnp.sum(target * jax.nn.log_softmax(outputs), axis=-1)
        if self.minimised == "focal":
            # Lin et al. 2017 (arXiv 1708.02002), equation 4, with γ = 2.
            surprise = jnp.square(1 - jnp.exp(-surprise)) * surprise
        return jnp.mean(surprise if batch.weight is None else surprise * batch.weight)

    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        if self.minimised in OF_NUMBERS:
            return jnp.array(jnp.nan)
        told = jnp.argmax(self.network(params, batch.inputs), axis=-1) == batch.targets
        weight = jnp.ones(told.shape) if batch.weight is None else batch.weight
        return jnp.sum(told * weight) / jnp.maximum(jnp.sum(weight), 1)


class QuadraticConfig(pydantic.BaseModel):
    """½ (x − x*)ᵀ H (x − x*) with noise in the gradient, where H has a chosen spectrum."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    kind: Literal["quadratic"]
    dimension: Count = 64
    condition: Annotated[float, pydantic.Field(ge=1, le=1e8)] = 1e3
    """Largest over smallest eigenvalue; they are evenly spaced in their logarithm."""
    noise: Annotated[float, pydantic.Field(ge=0, le=1e3)] = 0.1
    rotated: bool = True
    """Whether the axes of H are not those of x."""

    def build(self) -> "Quadratic":
        return Quadratic(self)


class Quadratic(AbstractFamily):
    """See `QuadraticConfig`. Each task has its axes and its minimum, at distance √n from the start."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: QuadraticConfig = eqx.field(static=True)

    def __init__(self, config: QuadraticConfig):
        self.name = f"quadratic-{config.dimension}-{config.condition:g}{'' if config.rotated else '-straight'}"
        self.tensors = (Tensor((config.dimension,)),)
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        c, keys = self.config, jax.random.split(key)
        axes = jnp.eye(c.dimension)
        if c.rotated:
            axes = jnp.linalg.qr(jax.random.normal(keys[0], axes.shape))[0]
        return axes, jax.random.normal(keys[1], (c.dimension,))

    def batch(self, instance: Any, key: PRNGKeyArray, part: Part) -> Batch:
        axes, minimum = instance
        c = self.config
        noise = c.noise * jax.random.normal(jax.random.fold_in(key, PARTS.index(part)), (c.dimension,))
        roots = jnp.exp(-0.5 * jnp.log(c.condition) * jnp.linspace(0, 1, c.dimension))
        # What is learned is seen without noise.
        return Batch(roots[:, None] * axes, minimum, noise if part == "train" else jnp.zeros_like(noise))

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        (x,) = params
        assert batch.weight is not None
        # The gradient's noise has the size of a coordinate's gradient at the start, which depends on no dimension.
        steady = 0.5 * jnp.sum(jnp.square(batch.inputs @ (x - batch.targets))) + jnp.sum(batch.weight * x)
        return steady / x.shape[0]

    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        return jnp.array(jnp.nan)


def _which(data: Any) -> str:
    kind = data.get("kind") if isinstance(data, dict) else getattr(data, "kind", None)
    return "quadratic" if kind == "quadratic" else "supervised"


FamilyConfig = Annotated[
    Annotated[SupervisedConfig, pydantic.Tag("supervised")] | Annotated[QuadraticConfig, pydantic.Tag("quadratic")],
    pydantic.Discriminator(_which),
]
