"""Cells: the update rules that are meta-trained and compiled."""

from ..step import MemorySlot as MemorySlot
from ._adam import Adam as Adam, AdamConfig as AdamConfig
from ._config import (
    AbstractCellConfig as AbstractCellConfig,
    cell_config as cell_config,
    cell_kinds as cell_kinds,
    CellConfig as CellConfig,
    config_class as config_class,
    register_cell as register_cell,
)
from ._interface import AbstractCell as AbstractCell, DECAY as DECAY, OPTIONAL as OPTIONAL
from ._lstm import LSTM as LSTM, LSTMConfig as LSTMConfig
from ._moments import sum_of_squares as sum_of_squares
from ._records import (
    Chunks as Chunks,
    Composition as Composition,
    has_role as has_role,
    Rows as Rows,
    Tensors as Tensors,
    Tiles as Tiles,
)
from ._weights import cell_weights as cell_weights, weight_name as weight_name, with_weights as with_weights
from .mnemosyne import (
    AssociativeMemory as AssociativeMemory,
    bounded as bounded,
    ChunkEncoder as ChunkEncoder,
    discount as discount,
    Kernel as Kernel,
    Mnemosyne as Mnemosyne,
    MnemosyneConfig as MnemosyneConfig,
    orthogonal_gaussian as orthogonal_gaussian,
    PriorConfig as PriorConfig,
    RandomFeatures as RandomFeatures,
    TensorPooling as TensorPooling,
)
