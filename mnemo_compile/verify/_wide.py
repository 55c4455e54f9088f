"""Cells in float64, in programs that run a few times."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from ..cell import AbstractCell

FEW_RUNS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Options of XLA for what takes longer to be compiled than to run."""

P = ParamSpec("P")
T = TypeVar("T")


def jit_few_runs(function: Callable[P, T]) -> Callable[P, T]:
    """`eqx.filter_jit` for a function that runs a few times."""
    return eqx.filter_jit(function, compiler_options=FEW_RUNS)  # pyright: ignore[reportCallIssue]


def widened(cell: AbstractCell) -> AbstractCell:
    """The cell with weights in float64. Call this, and use the result, with JAX's 64-bit mode enabled."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_array(leaf) else leaf, cell)
