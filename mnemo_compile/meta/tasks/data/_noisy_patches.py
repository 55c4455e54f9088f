"""Patches of photographs under noise, as for denoising (Zhang et al. 2016, arXiv 1608.03981)."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import pydantic
from jaxtyping import PRNGKeyArray

from ._interface import AbstractData, AbstractDataConfig, Batch, InputKind, Shape, Split, TargetKind
from ._patches import Patches, PatchesConfig


class NoisyPatchesConfig(AbstractDataConfig):
    """8×8 pixels in colour with noise. The noise is predicted, and not the image: residual learning."""

    kind: Literal["noisy-patches"] = "noisy-patches"
    noise: Annotated[float, pydantic.Field(gt=0, le=10)] = 0.4
    """Deviation, where that of the photographs is 1. That of the paper is 25 of 256 levels of grey."""

    @property
    def input_kind(self) -> InputKind:
        return "images"

    @property
    def target_kind(self) -> TargetKind:
        return "numbers"

    def build(self) -> "NoisyPatches":
        return NoisyPatches(self)


class NoisyPatches(AbstractData):
    """Each task has its own order of the colours. Targets are in units of the noise."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    noise: float = eqx.field(static=True)
    patches: Patches

    def __init__(self, config: NoisyPatchesConfig):
        self.patches = PatchesConfig(hides=False).build()
        self.name = f"noisy-patches-{config.noise:g}"
        self.input_shape = self.patches.input_shape
        self.outputs = self.input_shape[0] * self.input_shape[1] * self.input_shape[2]
        self.target_kind = config.target_kind
        self.noise = config.noise

    def draw(self, key: PRNGKeyArray) -> Any:
        return self.patches.draw(key)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        keys = jax.random.split(key)
        clean = self.patches.batch(instance, keys[0], split, size).inputs
        noise = jax.random.normal(keys[1], clean.shape)
        return Batch(clean + self.noise * noise, noise.reshape(size, -1))
