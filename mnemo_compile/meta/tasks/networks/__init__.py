"""Networks, one per file. A new one is a file beside these and a member of `NetworkConfig`."""

from typing import Annotated

import pydantic

from ._conv import ConvConfig
from ._denoiser import DenoiserConfig
from ._fourier import FourierConfig
from ._initialisation import Initialisation as Initialisation, initialise as initialise
from ._interface import (
    AbstractNetwork as AbstractNetwork,
    AbstractNetworkConfig as AbstractNetworkConfig,
    Params as Params,
    Tensor as Tensor,
    Width as Width,
)
from ._layers import linear as linear
from ._linear import LinearConfig
from ._mixer import MixerConfig
from ._mlp import MLPConfig
from ._perceptron import perceive as perceive, perceptron as perceptron
from ._periodic import PeriodicConfig
from ._recurrent import RecurrentConfig
from ._siren import SirenConfig
from ._tabular import TabularConfig
from ._temporal import TemporalConfig
from ._transformer import TransformerConfig
from ._vit import ViTConfig

NetworkConfig = Annotated[
    MLPConfig
    | ConvConfig
    | ViTConfig
    | TransformerConfig
    | RecurrentConfig
    | MixerConfig
    | SirenConfig
    | FourierConfig
    | TemporalConfig
    | DenoiserConfig
    | LinearConfig
    | TabularConfig
    | PeriodicConfig,
    pydantic.Field(discriminator="kind"),
]
"""Any of them; its `kind` says which."""
