"""From the `kind` in a configuration to the class of the cell."""

from typing import Any

import pydantic

from ._abstract import AbstractCell
from ._mnemosyne import Mnemosyne, MnemosyneConfig

# The single entry becomes a union discriminated by `kind` when a second cell joins.
CellConfig = MnemosyneConfig

_CELLS = {"mnemosyne": Mnemosyne}


def cell_config(data: dict[str, Any]) -> CellConfig:
    """Checked configuration. Raises `pydantic.ValidationError`."""
    return pydantic.TypeAdapter(CellConfig).validate_python(data)


def build_cell(config: CellConfig) -> AbstractCell:
    """A cell of this configuration with its initial weights."""
    return _CELLS[config.kind](config)
