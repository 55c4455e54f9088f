"""The sizes of kernels on a device: the first ones for which registers suffice, chosen once."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton
from triton.runtime.errors import OutOfResources

Options = Mapping[str, int]
"""Constants of a kernel that are free to choose, and `num_warps`."""

choices: dict[tuple[Any, ...], Options] = {}
"""What was chosen, by the name of the kernel, the device and the constants that are fixed."""


@functools.cache
def is_interpreted() -> bool:
    """Whether Triton's interpreter runs kernels, which needs no GPU."""
    return not isinstance(triton.jit(_nothing), triton.JITFunction)


def _nothing() -> None: ...


def choose(
    kernel: Any, arguments: Mapping[str, Any], fixed: Mapping[str, Any], candidates: Sequence[Options]
) -> Options:
    """The first candidate that keeps everything in registers, else the one that puts the fewest numbers aside.

    Only compilation is needed for it, and no run.

    **Raises:**

    `OutOfResources` if the device has too little shared memory for each of them.
    """
    if is_interpreted():
        return candidates[0]
    key = (kernel.__name__, torch.cuda.get_device_name(), *fixed.items())
    if key not in choices:
        choices[key] = _fewest_spills(kernel, arguments, fixed, candidates)
    return choices[key]


def _fewest_spills(
    kernel: Any, arguments: Mapping[str, Any], fixed: Mapping[str, Any], candidates: Sequence[Options]
) -> Options:
    best: tuple[int, Options] | None = None
    refused: OutOfResources | None = None
    for options in candidates:
        compiled = kernel.warmup(**arguments, **fixed, **options, grid=(1,))
        try:
            compiled._init_handles()
        except OutOfResources as error:
            refused = error
            continue
        if best is None or compiled.n_spills < best[0]:
            best = (compiled.n_spills, options)
        if not compiled.n_spills:
            break
    if best is None:
        assert refused is not None
        raise refused
    return best[1]
