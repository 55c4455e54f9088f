"""What updates tensors: Triton kernels, batched torch operations, or compiled functions."""

import importlib.util
import os
import shutil
import sys

import torch

from ._phases import KERNELS, POINTWISE

BACKENDS = ("torch", "compiled", "triton")


def choose_backend(backend: str | None, device: torch.device) -> str:
    """The backend of a step on this device: the user's choice, or the default.

    **Raises:**

    `ValueError` if the choice is unknown, or impossible on this device.
    """
    if backend is None:
        return "triton" if device.type == "cuda" and _obstacle("triton", device) is None else "torch"
    if backend not in BACKENDS:
        raise ValueError(
            f"backend must be one of {', '.join(BACKENDS)}, or None for the fastest of the device, not {backend!r}"
        )
    obstacle = _obstacle(backend, device)
    if obstacle is not None:
        raise ValueError(f"the backend {backend!r} is not available here, because {obstacle}; leave backend out")
    return backend


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
