"""Two customs of how large weights start."""

import math
from collections.abc import Sequence
from typing import Literal

from ._interface import Tensor

Initialisation = Literal["fan-in", "fixed"]
FIXED = 0.02
"""The deviation of GPT-2 (Radford et al. 2019), which embeddings and positions have in both."""


def initialise(tensors: Sequence[Tensor], initialisation: Initialisation) -> tuple[Tensor, ...]:
    """The tensors of a network, which start relative to their fan-in, in one of the two customs.

    With `fixed`, every matrix starts with the same deviation times its gain, whatever its size. The gain is what the
    deviation is relative to 1/√fan-in: 1/√(2 × layers) before a residual stream.
    """
    return tuple(tensors) if initialisation == "fan-in" else tuple(map(_fixed, tensors))


def _fixed(tensor: Tensor) -> Tensor:
    if tensor.deviation in (0.0, FIXED):
        return tensor
    return tensor._replace(deviation=FIXED * tensor.deviation * math.prod(tensor.shape[:-1]) ** 0.5)
