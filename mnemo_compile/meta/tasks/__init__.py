"""Tasks that optimizers are meta-trained and evaluated on: networks on data sets, and families of other losses."""

from typing import Annotated, Any

import pydantic

from ._contrastive import ContrastiveConfig
from ._diffusion import DiffusionConfig
from ._factorisation import FactorisationConfig
from ._family import AbstractFamily as AbstractFamily, AbstractFamilyConfig as AbstractFamilyConfig
from ._graph import GraphConfig
from ._physics import PhysicsConfig
from ._policy import PolicyConfig
from ._quadratic import Quadratic as Quadratic, QuadraticConfig as QuadraticConfig
from ._skip_gram import SkipGramConfig
from ._supervised import Supervised as Supervised, SupervisedConfig as SupervisedConfig
from ._variational import VariationalConfig
from .data import Batch as Batch, DataConfig as DataConfig, Split as Split, SPLITS as SPLITS
from .networks import NetworkConfig as NetworkConfig, Params as Params, Tensor as Tensor


def _tag(config: Any) -> Any:
    kind = config.get("kind") if isinstance(config, dict) else getattr(config, "kind", None)
    return "supervised" if kind is None else kind


FamilyConfig = Annotated[
    Annotated[SupervisedConfig, pydantic.Tag("supervised")]
    | Annotated[QuadraticConfig, pydantic.Tag("quadratic")]
    | Annotated[VariationalConfig, pydantic.Tag("variational")]
    | Annotated[DiffusionConfig, pydantic.Tag("diffusion")]
    | Annotated[ContrastiveConfig, pydantic.Tag("contrastive")]
    | Annotated[SkipGramConfig, pydantic.Tag("skip-gram")]
    | Annotated[FactorisationConfig, pydantic.Tag("factorisation")]
    | Annotated[GraphConfig, pydantic.Tag("graph")]
    | Annotated[PhysicsConfig, pydantic.Tag("physics")]
    | Annotated[PolicyConfig, pydantic.Tag("policy")],
    pydantic.Discriminator(_tag),
]
"""The family that `kind` names; without one, a network on data."""
