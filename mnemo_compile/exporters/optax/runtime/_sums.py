"""Sums of the rows of each tensor."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ._rows import Rows

_WIDTH = 16
"""Rows that one sum adds."""


def sums(values: Rows, owner: np.ndarray) -> Rows:
    """The rows of each owner summed, in the order of the owners' numbers.

    This is a tree of sums over fixed rows, so that the result is the same every time and on every device. A scatter
    would add in any order. On rows that devices divide unevenly it could also add numbers past the end.
    """
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner)
    while True:
        groups = -(-counts // _WIDTH)
        starts = np.cumsum(counts) - counts
        place = np.arange(groups.sum()) - np.repeat(np.cumsum(groups) - groups, groups)
        within = place[:, None] * _WIDTH + np.arange(min(_WIDTH, counts.max()))
        is_row = within < np.repeat(counts, groups)[:, None]
        rows = order[np.where(is_row, np.repeat(starts, groups)[:, None] + within, 0)]
        values = {name: _sum_where(is_row, value[rows]) for name, value in values.items()}
        if counts.max() <= _WIDTH:
            return values
        order, counts = np.arange(len(rows)), groups


def total(values: jax.Array) -> jax.Array:
    """The sums along the second axis, in parts of equal numbers first, because long sums round more."""
    rows = values.shape[1]
    width = math.isqrt(rows - 1) + 1
    padded = jnp.pad(values, [(0, 0), (0, -rows % width), *((0, 0) for _ in values.shape[2:])])
    parts = padded.reshape(values.shape[0], -1, width, *values.shape[2:])
    return jnp.sum(jnp.sum(parts, axis=2), axis=1)


def _sum_where(is_row: np.ndarray, values: jax.Array) -> jax.Array:
    if values.shape[1] == 1:
        return values[:, 0]
    return jnp.sum(values, axis=1, where=is_row.reshape(*is_row.shape, *(1 for _ in values.shape[2:])))
