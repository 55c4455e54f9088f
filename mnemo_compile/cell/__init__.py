"""Cells: the update rules that are meta-trained and compiled."""

from ._abstract import AbstractCell as AbstractCell, MemorySlot as MemorySlot, Rows as Rows
from ._adam import Adam as Adam, AdamConfig as AdamConfig
from ._config import (
    AbstractCellConfig as AbstractCellConfig,
    cell_config as cell_config,
    CellConfig as CellConfig,
    known_kinds as known_kinds,
    register_cell as register_cell,
)
from ._features import (
    bounded as bounded,
    Kernel as Kernel,
    orthogonal_gaussian as orthogonal_gaussian,
    RandomFeatures as RandomFeatures,
)
from ._lstm import LSTM as LSTM, LSTMConfig as LSTMConfig
from ._memory import AssociativeMemory as AssociativeMemory, discount as discount
from ._mnemosyne import Mnemosyne as Mnemosyne, MnemosyneConfig as MnemosyneConfig
from ._moments import sum_of_squares as sum_of_squares
from ._pooling import ChunkEncoder as ChunkEncoder, TensorPooling as TensorPooling
from ._weights import cell_weights as cell_weights, with_weights as with_weights
