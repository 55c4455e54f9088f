"""Bytes that optimizers keep between steps."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..cell import AbstractCell

Shapes = Mapping[str, tuple[int, ...]]


def state_bytes(cell: "AbstractCell", shapes: Shapes) -> int:
    """What the optimizer of a cell keeps of parameters with these names and shapes, by their roles."""
    per_tensor = sum(4 * value.size for value in cell.initial_state().values())
    return sum(per_tensor + _memory_bytes(cell, name, shape) for name, shape in shapes.items())


def _memory_bytes(cell: "AbstractCell", name: str, shape: tuple[int, ...]) -> int:
    from ..step import describe

    role = describe(shape, name=name).role
    return sum(
        math.prod(slot.tensor_shape(shape, cell.chunk_length)) * slot.number_bytes
        for slot in cell.memory_slots
        if slot.applies_to(role)
    )


def adamw_bytes(shapes: Shapes, number: int) -> int:
    """What `torch.optim.AdamW` keeps: two averages in the dtype of the parameters, and a counter."""
    return sum(2 * number * math.prod(shape) + 4 for shape in shapes.values())


def adafactor_bytes(shapes: Shapes, number: int) -> int:
    """What `torch.optim.Adafactor` keeps: second moments of rows and columns, whole ones of vectors, and a counter."""
    return sum(number * _factored(shape) + 4 for shape in shapes.values())


def _factored(shape: tuple[int, ...]) -> int:
    if len(shape) < 2:
        return math.prod(shape)
    *batch, rows, columns = shape
    return math.prod(batch) * (rows + columns)
