"""The records of meta-steps and of validations, by the names of the families."""

from collections.abc import Sequence
from typing import Any

from ._validation import Validation, validation_score
from .inner_loop import InnerLoop


def family_names(loops: Sequence[InnerLoop]) -> tuple[str, ...]:
    """The names of the families. Families with the same name are numbered."""
    names = [loop.family.name for loop in loops]
    numbers = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return tuple(
        name if names.count(name) == 1 else f"{name} #{number}" for name, number in zip(names, numbers, strict=True)
    )


def validation_record(meta_step: int, families: Sequence[str], figures: Sequence[Validation]) -> dict[str, Any]:
    """The record of a validation; the figures are numbers."""
    return {
        "meta_step": meta_step,
        "validation_score": float(validation_score(figures)),
        "validation_objective": {name: f.objective for name, f in zip(families, figures, strict=True)},
        "validation_training_loss": {name: f.training_loss for name, f in zip(families, figures, strict=True)},
        "validation_loss": {name: f.validation_loss for name, f in zip(families, figures, strict=True)},
    }
