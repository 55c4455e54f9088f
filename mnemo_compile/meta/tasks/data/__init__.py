"""Data sets, one per file. A new one is a file beside these and a member of `DataConfig`."""

from typing import Annotated

import pydantic

from ._bells import BellsConfig
from ._bytes import BytesConfig
from ._clusters import ClustersConfig
from ._copying import CopyingConfig
from ._fractals import FractalsConfig
from ._friedman import FriedmanConfig
from ._interface import (
    AbstractData as AbstractData,
    AbstractDataConfig as AbstractDataConfig,
    Batch as Batch,
    Count as Count,
    InputKind as InputKind,
    Shape as Shape,
    Split as Split,
    split_key as split_key,
    SPLITS as SPLITS,
    TargetKind as TargetKind,
)
from ._linear_map import LinearMapConfig
from ._markov import MarkovConfig
from ._modular import ModularConfig
from ._noisy_patches import NoisyPatchesConfig
from ._parity import ParityConfig
from ._patches import PatchesConfig
from ._phantom import PhantomConfig
from ._photograph import PhotographConfig
from ._rearranged import RearrangedConfig
from ._shapes import ShapesConfig
from ._signals import SignalsConfig
from ._sinusoids import SinusoidsConfig
from ._source import SourceConfig as SourceConfig
from ._spirals import SpiralsConfig
from ._table import TableConfig
from ._teacher import TeacherConfig

DataConfig = Annotated[
    TableConfig
    | SourceConfig
    | BytesConfig
    | PatchesConfig
    | ClustersConfig
    | TeacherConfig
    | MarkovConfig
    | SignalsConfig
    | ShapesConfig
    | ModularConfig
    | ParityConfig
    | RearrangedConfig
    | PhotographConfig
    | PhantomConfig
    | NoisyPatchesConfig
    | BellsConfig
    | SinusoidsConfig
    | CopyingConfig
    | LinearMapConfig
    | FriedmanConfig
    | FractalsConfig
    | SpiralsConfig,
    pydantic.Field(discriminator="kind"),
]
"""Any of them; its `kind` says which."""
