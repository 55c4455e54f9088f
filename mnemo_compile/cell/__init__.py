"""Cells: the update rules that are meta-trained and compiled."""

from ._abstract import AbstractCell as AbstractCell, MemorySlot as MemorySlot, Rows as Rows
from ._features import (
    bounded as bounded,
    Kernel as Kernel,
    orthogonal_gaussian as orthogonal_gaussian,
    RandomFeatures as RandomFeatures,
)
from ._memory import AssociativeMemory as AssociativeMemory, discount as discount
from ._mnemosyne import Mnemosyne as Mnemosyne, MnemosyneConfig as MnemosyneConfig
from ._pooling import ChunkEncoder as ChunkEncoder, TensorPooling as TensorPooling
from ._registry import build_cell as build_cell, cell_config as cell_config, CellConfig as CellConfig
from ._weights import cell_weights as cell_weights, with_weights as with_weights
