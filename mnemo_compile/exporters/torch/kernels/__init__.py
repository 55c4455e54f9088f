"""Triton kernels from the programs of phases."""

from ._source import kernel_source as kernel_source
