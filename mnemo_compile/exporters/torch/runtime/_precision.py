"""The precision of matrix products, which is the optimizer's own and never that around it."""

from typing import Any, get_args, Literal

import torch

Precision = Literal["bfloat16", "tf32", "float32"]
"""Of the factors of products of tiles. Products are summed in the dtype of the arithmetic, float32 or float64."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def precision_of(choice: Precision | None, device: torch.device, dtype: torch.dtype) -> Precision:
    """The choice, or the default of the device. Products of float64 are never rounded."""
    if dtype == torch.float64:
        return "float32"
    return choice or ("bfloat16" if device.type == "cuda" else "float32")


class matmul_precision:  # noqa: N801
    """A context in which products of float32 have this precision on this type of device, whatever the user has set.

    A graph that `torch.compile` traces cannot contain it.
    """

    def __init__(self, precision: Precision, device_type: str):
        # Factors that are rounded to bfloat16 are exact in TF32, so that only the sums are in float32.
        self.is_narrow = precision != "float32" and device_type == "cuda"
        self.before: list[str] = []

    def __enter__(self) -> None:
        if not torch.compiler.is_compiling():
            self.before = _settings()
            _set(["tf32" if self.is_narrow else "ieee", "ieee"])

    def __exit__(self, *error: object) -> None:
        if not torch.compiler.is_compiling():
            _set(self.before)


# torch 2.9 has a setting for CUDA and one for CPUs. Before, one setting was for both.
_HAS_TWO = hasattr(torch.backends.cuda.matmul, "fp32_precision")


def _settings() -> list[str]:
    if _HAS_TWO:
        return [backend.fp32_precision for backend in _backends()]
    return [torch.get_float32_matmul_precision()]


def _backends() -> tuple[Any, Any]:
    """What multiplies matrices on a GPU and on a CPU."""
    mkldnn: Any = torch.backends.mkldnn
    return torch.backends.cuda.matmul, mkldnn.matmul


def _set(values: list[str]) -> None:
    if not _HAS_TWO:
        torch.set_float32_matmul_precision({"ieee": "highest", "tf32": "high"}.get(values[0], values[0]))
        return
    for backend, value in zip(_backends(), values, strict=True):
        # "none" is the same as "ieee", and is left as it is.
        if backend.fp32_precision != value and {backend.fp32_precision, value} != {"none", "ieee"}:
            backend.fp32_precision = value
