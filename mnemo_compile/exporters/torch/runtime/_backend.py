"""What updates tensors: Triton kernels, batched torch operations, or compiled functions."""

import importlib.util
import logging
import os
import shutil
import sys

import torch

from ._phases import KERNELS, POINTWISE
from ._step import is_fake

BACKENDS = ("torch", "compiled", "triton")
LARGE = 8 << 20
"""From so many coordinates on, compiled functions are the default on a CPU. They save about 5 ms per million and step
(mnemosyne-elementwise on one core), so that a minute of compiling comes back within 1,500 steps."""
_ONE_THREAD = 16384
"""From twice as many numbers on, torch divides operations among threads, whose start may take longer than they do."""
_FEW = 1 << 19
"""Below so many coordinates, one thread multiplies matrices. Others would start for each product, and may have to wait
for a processor."""
_failures: list[str] = []
"""What torch's compiler has failed with in this process."""
_LOGGER = logging.getLogger(__name__)
_ALONE = 4096
"""On a CPU, a tensor of more coordinates takes longer to copy into a pack and out again than to be updated alone."""


def choose_backend(backend: str | None, device: torch.device, coordinates: int = 0) -> str:
    """The backend of a step over so many coordinates on a device: the user's choice, or the fastest.

    **Raises:**

    `ValueError` if the choice is unknown, or impossible on this device.
    """
    if backend is None:
        if device.type == "cuda" and not is_fake() and _obstacle("triton", device) is None:
            return "triton"
        is_fast = device.type == "cpu" and coordinates >= LARGE and not is_fake() and not _failures
        return "compiled" if is_fast and _obstacle("compiled", device) is None else "torch"
    if backend not in BACKENDS:
        raise ValueError(
            f"backend must be one of {', '.join(BACKENDS)}, or None for the fastest of the device, not {backend!r}"
        )
    obstacle = _obstacle(backend, device)
    if obstacle is not None:
        raise ValueError(f"the backend {backend!r} is not available here, because {obstacle}; leave backend out")
    return backend


def give_up_compiling(error: Exception) -> None:
    """Chooses no compiled functions in this process any more, and says so."""
    _failures.append(str(error))
    _LOGGER.warning("batched operations of torch take steps, which is slower, because %s", error)


def _obstacle(backend: str, device: torch.device) -> str | None:
    """Why a backend is impossible on this device, or None if it is possible."""
    if backend == "triton":
        if not KERNELS:
            return "this package has no Triton kernels"
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed"
        if device.type not in ("cuda", "meta") and os.environ.get("TRITON_INTERPRET") != "1":
            return f"Triton runs on a GPU, and parameters are on {device.type}"
    if backend == "compiled":
        if not POINTWISE:
            return "the phases of this cell are no single loops over coordinates"
        if device.type == "cpu" and not _has_compiler():
            return f"there is no C++ compiler ({_compiler()} was looked for, and the variable CXX names another)"
    return None


def _compiler() -> str:
    """The C++ compiler that torch's own compiler calls."""
    default = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    return os.environ.get("CXX") or default


def _has_compiler() -> bool:
    return shutil.which(_compiler()) is not None


def is_small(device: torch.device, backend: str, coordinates: int) -> bool:
    """Whether a step takes one thread, because on a CPU others would start later than it ends."""
    return device.type == "cpu" and backend == "torch" and coordinates < LARGE


def multiplies_alone(device: torch.device, coordinates: int) -> bool:
    """Whether one thread multiplies the matrices of a step, tile by tile."""
    return device.type == "cpu" and coordinates < _FEW


def cpu_sizes(block_size: int, small: bool) -> tuple[int, int]:
    """The size of blocks on a CPU, and that of the largest tensor that shares a pack."""
    return min(block_size, _ONE_THREAD) if small else block_size, _ALONE
