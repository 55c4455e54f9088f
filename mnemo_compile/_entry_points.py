"""Entry points: how installed packages bring cells and targets of their own."""

import importlib.metadata
from typing import Any

CELLS = "mnemo_compile.cells"
"""The group in which a package names its classes of cell configurations, by their kind."""
TARGETS = "mnemo_compile.targets"
"""The group in which a package names its exporters, by target."""


def names(group: str) -> tuple[str, ...]:
    """The names in a group, in order. Nothing is imported for them."""
    return tuple(sorted({point.name for point in importlib.metadata.entry_points(group=group)}))


def load(group: str, name: str) -> Any:
    """What a name in a group stands for, or None if no package has it."""
    points = importlib.metadata.entry_points(group=group, name=name)
    return next(iter(points)).load() if points else None
