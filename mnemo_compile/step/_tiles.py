"""Cutting tensors into tiles and joining them again."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._layout import Tiling
from ._roles import Axes


def cut(tensor: Float[Array, "..."], axes: Axes, tiling: Tiling) -> Float[Array, "tiles height width"]:
    """The tiles of a tensor, padded with zeros."""
    matrices = tensor.reshape(axes.split).transpose(axes.order).reshape(axes.sizes)
    padding = [(0, whole - size) for whole, size in zip(tiling.padded, axes.sizes[1:], strict=True)]
    (down, across), (height, width) = tiling.grid, tiling.tile
    grid = jnp.pad(matrices, [(0, 0), *padding]).reshape(-1, down, height, across, width)
    return grid.transpose(tiling.to_tiles).reshape(-1, *tiling.shape)


def join(
    tiles: Float[Array, "tiles height width"], shape: Sequence[int], axes: Axes, tiling: Tiling
) -> Float[Array, "..."]:
    """The tensor of this shape that has these tiles."""
    (down, across), (rows, columns) = tiling.grid, axes.sizes[1:]
    grid = tiles.reshape(-1, down, across, *tiling.shape)
    matrices = grid.transpose(tiling.from_tiles).reshape(-1, *tiling.padded)[:, :rows, :columns]
    parts = [axes.split[axis] for axis in axes.order]
    return matrices.reshape(parts).transpose(np.argsort(axes.order)).reshape(shape)
