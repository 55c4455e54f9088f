"""Cells in float64."""

import equinox as eqx
import jax
import jax.numpy as jnp

from ..cell import AbstractCell


def widened(cell: AbstractCell) -> AbstractCell:
    """The cell with weights in float64. Call this, and use the result, with JAX's 64-bit mode enabled."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_array(leaf) else leaf, cell)
