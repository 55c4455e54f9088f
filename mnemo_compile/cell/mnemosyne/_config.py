"""The configuration of Mnemosyne: variant and sizes of the network, and the settings of the prior."""

from typing import Annotated, ClassVar, Literal

import pydantic

from ...step import Dtype, Role, ROLES
from .._config import AbstractCellConfig, register_cell, Size
from .._interface import AbstractCell
from ._features import Kernel

Fraction = Annotated[float, pydantic.Field(gt=0, lt=1)]
UpToOne = Annotated[float, pydantic.Field(ge=0, le=1)]
Step = Annotated[float, pydantic.Field(gt=0, le=1)]
Bound = Annotated[float, pydantic.Field(ge=0, le=4)]
Few = Annotated[int, pydantic.Field(ge=1, le=8)]
Reference = Annotated[int, pydantic.Field(ge=0)]


class PriorConfig(pydantic.BaseModel):
    """Settings of the prior: the optimizer that the network bends."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    matrix_step: Step = 0.012
    """Step of a matrix, relative to its root mean square."""
    vector_step: Step = 0.004
    """Step of a vector, relative to the larger of its root mean square and 1."""
    nesterov: Annotated[float, pydantic.Field(ge=0, le=2)] = 0.0
    """Weight of this step's gradient in the direction, which is added to the gradient that memory recalls."""
    cautious: UpToOne = 0.0
    """Fraction of its step that a coordinate loses where its direction is against this step's gradient (Liang et al.
    2024, arXiv 2411.16085)."""
    warm_up: Fraction = 0.02
    """Fraction of the horizon over which the step grows from zero."""
    annealing: Literal["cosine", "linear"] = "cosine"
    """How the step shrinks towards the horizon."""
    reference_horizon: Reference = 0
    """Over a horizon longer than this, steps shrink by the root of the ratio; 0 turns this off."""
    reference_matrices: Reference = 0
    """In a network of more matrices than this, steps shrink by the root of the ratio; 0 turns this off."""
    reference_width: Reference = 0
    """In a matrix wider than this, steps shrink by the root of the ratio; 0 turns this off. The width is that of a
    square matrix with as many coordinates."""
    signal_to_noise: UpToOne = 0.0
    """Power of the direction's root mean square that the step grows with. At 0, steps have one size however noisy the
    gradients are. At 1, steps follow the ratio of signal to noise as Adam's do (Kingma and Ba 2015, section 2.1)."""


@register_cell
class MnemosyneConfig(AbstractCellConfig):
    """The settings that determine a Mnemosyne cell before meta-training."""

    may_differ: ClassVar[frozenset[str]] = AbstractCellConfig.may_differ | {"state_dtype", "prior"}

    kind: Literal["mnemosyne"] = "mnemosyne"
    prior: PriorConfig = PriorConfig()
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

    def build(self) -> AbstractCell:
        # The cell's module imports this one.
        from ._cell import Mnemosyne

        return Mnemosyne(self)
