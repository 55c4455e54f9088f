"""The configuration of Mnemosyne: variant and sizes of the network, and the settings of the prior."""

from typing import Annotated, ClassVar, Literal

import pydantic

from ...step import Dtype, Role, ROLES, TILED
from .._config import AbstractCellConfig, register_cell, Size
from .._interface import AbstractCell
from .._weights import zeros_of
from ._features import Kernel

Fraction = Annotated[float, pydantic.Field(gt=0, lt=1)]
UpToOne = Annotated[float, pydantic.Field(gt=0, le=1)]
Step = Annotated[float, pydantic.Field(gt=0, le=1)]
Bound = Annotated[float, pydantic.Field(ge=0, le=4)]
Few = Annotated[int, pydantic.Field(ge=1, le=8)]


class StepsConfig(pydantic.BaseModel):
    """The step of each role.

    With tiles, matrices, convolutions and heads move relative to the usual root mean square of their size. A vector
    moves relative to the larger of its present root mean square and 1, and others relative to the larger of their
    present and the usual one.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    vector: Step = 0.012
    matrix: Step = 0.17
    embedding: Step = 0.066
    head: Step = 0.2
    convolution: Step = 0.12


class PriorConfig(pydantic.BaseModel):
    """Settings of the prior: the optimizer that the network bends."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    tile: Annotated[int, pydantic.Field(ge=0, le=4096)] = 128
    """Largest side of the tiles whose polar factors are the direction of matrices and convolutions. 0 leaves them out:
    then every direction is Adam's."""
    steps: StepsConfig = StepsConfig()
    pretrained: UpToOne = 0.5
    """Factor of all steps in a pretrained network."""
    nesterov: Annotated[float, pydantic.Field(ge=0, le=2)] = 0.7
    """Weight of this step's gradient in the direction, which is added to the gradient that memory recalls."""
    guard: Annotated[float, pydantic.Field(ge=0, le=2)] = 0.25
    """Power of the gradient's norm over its peak that steps shrink with."""
    small_start: Annotated[float, pydantic.Field(ge=0, le=4)] = 2.0
    """Steps of a tensor grow with this power of its first root mean square over `small_from` of the usual one, if that
    is below 1."""
    small_from: UpToOne = 0.4
    """Fraction of the usual root mean square below which a tensor starts small on purpose."""
    small_networks: UpToOne = 1.0
    """Factor of all steps in a network that starts small, as networks with sines do: where more matrices and
    convolutions than not start below half of `small_from` of the usual root mean square."""
    small_heads: bool = True
    """Whether the steps of a head that starts small are smaller, too."""
    large_start: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.0
    """Steps of a tensor grow with this power of its first root mean square over the usual one, if that is above 1."""
    wide: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.0
    """Steps of a matrix shrink with this power of the side of a tile over its shorter side, if that is below 1."""
    warm_up: Fraction = 0.05
    """Fraction of the horizon over which the step grows from zero."""
    annealing: Literal["cosine", "linear"] = "linear"
    """How the step shrinks towards the horizon."""
    last_step: Fraction = 0.01
    """Fraction of the step that remains at the horizon and after it."""


@register_cell
class MnemosyneConfig(AbstractCellConfig):
    """The settings that determine a Mnemosyne cell before meta-training."""

    may_differ: ClassVar[frozenset[str]] = AbstractCellConfig.may_differ | {"state_dtype", "prior"}

    kind: Literal["mnemosyne"] = "mnemosyne"
    prior: PriorConfig = PriorConfig()
    network: bool = True
    """Whether there is a network. Without it the cell is its prior, and the settings of the network do not count."""
    token: Size = 8
    """Length of chunk tokens and meta-tokens."""
    meta_tokens: Size = 2
    """Meta-tokens per tensor (b)."""
    random_features: Size = 8
    """Features of each kernel (M)."""
    kernel: Kernel = "positive"
    context: Size = 16
    """Hidden units of the context network, which runs once per tensor."""
    hidden: Size = 8
    """Hidden units of the coordinate network."""
    momentum: Annotated[tuple[Fraction, ...], pydantic.Field(max_length=8)] = (0.9, 0.98)
    """Initial discounts λ of the heads of the coordinate's gradient memory. Without one, a coordinate has no memory."""
    second_moment: Fraction = 0.99
    """Initial discount of the squared gradient."""
    step_bound: Bound = 1.2
    """The learned factor of the step lies within exp(±step_bound)."""
    bend_bound: Bound = 0.5
    """Learned coefficients of the direction differ from the prior's by at most this."""
    coordinate_wise: tuple[Role, ...] = ()
    """Roles of the tensors whose coordinates have their own keys and queries. No role gives the tensor-wise variant,
    all roles the coordinate-wise variant, and some roles Super-Mnemosyne."""
    memory_features: Few = 1
    """Features per head of the coordinate's gradient memory (r)."""
    second_moments: Literal["full", "factored", "none"] = "full"
    """The estimate of second moments: one number per coordinate (`full`), two factors for the chunk and the place in
    the chunk (`factored`), or one number per tensor (`none`)."""
    state_dtype: Dtype = "float32"
    """Dtype of the memory of coordinates."""
    pooling_levels: Literal[1, 2] = 2
    """Whether coordinates become meta-tokens directly (1) or through chunk tokens (2)."""
    tensor_memory: bool = True
    """Whether meta-tokens remember earlier steps."""
    tensor_heads: Few = 1
    """Heads of the meta-tokens' memory, each with its discounts."""
    chunk_memory: Annotated[int, pydantic.Field(ge=0, le=64)] = 0
    """Length of the value that a chunk's memory of earlier steps recalls; 0 leaves this memory out."""
    chunk_features: Size = 4
    """Random features of the chunk's memory."""
    network_attention: bool = False
    """Whether the tensors of the network attend to each other."""
    agreement: bool = False
    """Whether meta-tokens see how well the gradient agrees with each head of the coordinates' memory."""
    role_aware: bool = False
    """Whether meta-tokens see the tensor's role."""
    adaptation: Bound = 0.0
    """A second learned factor of the step lies within exp(±adaptation). It moves a little each step and persists."""

    @pydantic.field_validator("coordinate_wise")
    @classmethod
    def _in_order(cls, roles: tuple[Role, ...]) -> tuple[Role, ...]:
        return tuple(role for role in ROLES if role in roles)

    @pydantic.model_validator(mode="after")
    def _has_gradient_memory(self) -> "MnemosyneConfig":
        if self.coordinate_wise and not self.momentum:
            raise ValueError("coordinate_wise needs a memory of gradients, and momentum = [] leaves none")
        if self.agreement and not self.momentum:
            raise ValueError("agreement = true compares with a memory of gradients, and momentum = [] leaves none")
        return self

    @pydantic.model_validator(mode="after")
    def _fits_tiles(self) -> "MnemosyneConfig":
        both = [role for role in self.coordinate_wise if role in TILED] if self.prior.tile else []
        if both:
            raise ValueError(
                f"coordinate_wise holds {both[0]}, whose tiles need a memory of the tensor; leave it out, or set "
                "tile = 0 in the prior"
            )
        return self

    def build(self) -> AbstractCell:
        # The cell's module imports this one.
        from ._cell import Mnemosyne

        return Mnemosyne(self)

    def template(self) -> AbstractCell:
        # Random weights take seconds, as JAX compiles a program for each shape.
        return zeros_of(self.build)
