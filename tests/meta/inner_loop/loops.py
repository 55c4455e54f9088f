"""Inner loops of several families, for tests."""

from typing import Any

import equinox as eqx

from mnemo_compile.meta.inner_loop import Augmentation, InnerLoop
from tests.helpers import learned_cell
from tests.meta.tasks.families import family_of

DIGITS = {"kind": "digits"}
FAMILIES = [
    {"network": {"kind": "mlp", "widths": [3, 2], "activation": "tanh"}, "data": DIGITS, "batch": 8},
    {"network": {"kind": "conv", "channels": [2, 3]}, "data": DIGITS, "batch": 8},
    {"network": {"kind": "vit", "width": 4, "depth": 2}, "data": DIGITS, "batch": 8},
    {"network": {"kind": "transformer", "width": 4}, "data": {"kind": "markov", "symbols": 5}, "batch": 8},
    {"kind": "quadratic", "dimension": 5},
]
PLAIN = Augmentation(200, 200)


def loop_of(family: dict[str, Any], augmentation: Augmentation = PLAIN, truncation: int = 4) -> InnerLoop:
    return InnerLoop(family_of(family), learned_cell(), augmentation, truncation)


def weights_of(loop: InnerLoop) -> Any:
    return eqx.filter(loop.cell, eqx.is_array)
