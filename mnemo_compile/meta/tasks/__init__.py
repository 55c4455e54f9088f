"""Tasks that optimizers are meta-trained and evaluated on: networks on data sets, and quadratics."""

from typing import Annotated, Any

import pydantic

from ._family import AbstractFamily as AbstractFamily, AbstractFamilyConfig as AbstractFamilyConfig
from ._quadratic import Quadratic as Quadratic, QuadraticConfig as QuadraticConfig
from ._supervised import Supervised as Supervised, SupervisedConfig as SupervisedConfig
from .data import Batch as Batch, DataConfig as DataConfig, Split as Split, SPLITS as SPLITS
from .networks import NetworkConfig as NetworkConfig, Params as Params, Tensor as Tensor


def _tag(config: Any) -> str:
    kind = config.get("kind") if isinstance(config, dict) else getattr(config, "kind", None)
    return "quadratic" if kind == "quadratic" else "supervised"


FamilyConfig = Annotated[
    Annotated[SupervisedConfig, pydantic.Tag("supervised")] | Annotated[QuadraticConfig, pydantic.Tag("quadratic")],
    pydantic.Discriminator(_tag),
]
"""A quadratic where `kind` says so, else a network on data."""
