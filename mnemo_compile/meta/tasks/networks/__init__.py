"""Networks, one per file. A new one is a file beside these and a member of `NetworkConfig`."""

from typing import Annotated

import pydantic

from ._conv import ConvConfig
from ._interface import (
    AbstractNetwork as AbstractNetwork,
    AbstractNetworkConfig as AbstractNetworkConfig,
    Params as Params,
    Tensor as Tensor,
)
from ._mixer import MixerConfig
from ._mlp import MLPConfig
from ._recurrent import RecurrentConfig
from ._transformer import TransformerConfig
from ._vit import ViTConfig

NetworkConfig = Annotated[
    MLPConfig | ConvConfig | ViTConfig | TransformerConfig | RecurrentConfig | MixerConfig,
    pydantic.Field(discriminator="kind"),
]
"""Any of them; its `kind` says which."""
