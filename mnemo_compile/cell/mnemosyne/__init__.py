"""Mnemosyne: a hand-designed prior, and a small attention network that changes its steps within bounds."""

from ._cell import Mnemosyne as Mnemosyne
from ._config import MnemosyneConfig as MnemosyneConfig, PriorConfig as PriorConfig
from ._features import (
    bounded as bounded,
    Kernel as Kernel,
    orthogonal_gaussian as orthogonal_gaussian,
    RandomFeatures as RandomFeatures,
)
from ._memory import AssociativeMemory as AssociativeMemory, discount as discount
from ._pooling import ChunkEncoder as ChunkEncoder, TensorPooling as TensorPooling
