"""Whether a step fits, on how many devices, and how tensors lie on them."""

from typing import Literal, NamedTuple

from ._memory import Memory

Sharding = Literal["none", "copies", "fully_shard"]

MARGIN = 0.9
"""The part of a device's memory that tensors may fill. The rest is for the allocator's gaps and the driver."""
_MOST = 2**14
"""Devices that are tried."""


class Placement(NamedTuple):
    """Where the tensors of a step lie."""

    devices: int
    sharding: Sharding
    peak: int
    """Bytes on one device."""
    fits: bool | None
    """None where the memory of a device is not known."""


def place(memory: Memory, state: int, *, capacity: int | None, devices: int | None) -> Placement:
    """Chooses devices and sharding.

    Whole copies come first, because nothing travels but gradients; then `fully_shard`.

    **Arguments:**

    - `memory`: that of the passes.
    - `state`: bytes that the optimizer keeps.
    - `capacity`: bytes of a device. None asks for no more than the peak.
    - `devices`: None takes the fewest that fit, or one where no number does.
    """
    if devices is not None:
        return _on(memory, state, capacity, devices)
    if capacity is None:
        return _on(memory, state, None, 1)
    count = 1
    while not (found := _on(memory, state, capacity, count)).fits and count < _MOST:
        count *= 2
    return found if found.fits else _on(memory, state, capacity, 1)


def _on(memory: Memory, state: int, capacity: int | None, devices: int) -> Placement:
    whole = whole_peak(memory, state, devices)
    sharding: Sharding = "none" if devices == 1 else "copies"
    if capacity is None:
        return Placement(devices, sharding, whole, None)
    room = MARGIN * capacity
    if whole <= room or devices == 1:
        return Placement(devices, sharding, whole, whole <= room)
    sharded = sharded_peak(memory, state, devices)
    return Placement(devices, "fully_shard", sharded, sharded <= room)


def whole_peak(memory: Memory, state: int, devices: int) -> int:
    """The peak of a device that holds everything. Copies keep gradients a second time, in the buckets that travel."""
    buckets = memory.gradients if devices > 1 else 0
    return state + buckets + max(memory.passes, memory.weights + memory.gradients)


def sharded_peak(memory: Memory, state: int, devices: int) -> int:
    """A bound of the peak under `fully_shard`.

    A device holds its part of weights, gradients and state, all its activations, two gathered blocks (one computes and
    one is fetched), and the gradients of one block before they are spread.
    """
    parts = -(-(memory.weights + memory.gradients + state) // devices)
    return parts + max(memory.activations, memory.passes - memory.weights - memory.gradients) + 3 * memory.largest_block
