"""How work is divided on a kind of device."""

from typing import NamedTuple

import jax


class Device(NamedTuple):
    """What suits a kind of device, and the compiler for it."""

    block: int
    """Coordinates of a block, unless the user says how many."""
    whole: bool
    """Whether large tensors are summed and updated at once where this needs no workspace.

    A compiler must compute several outputs in one loop for this. That for CPUs does not, and copies a tensor first to
    keep what the other loops read.
    """


CPU = Device(block=2**18, whole=False)
"""A block stays in the caches."""
ACCELERATOR = Device(block=2**22, whole=True)
"""Smaller blocks would leave it idle."""


def device() -> Device:
    """That of the process, for which steps are traced."""
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR
