"""Tiles cover every matrix of a tensor once, and joining them gives the tensor again."""

import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.step import describe, tiling
from mnemo_compile.step._tiles import cut, join

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 400), st.integers(1, 400))
LARGEST = st.integers(1, 130)
FEW = hypothesis.settings(max_examples=12, deadline=None)


SIDES = st.integers(1, 6)
TENSORS = st.one_of(
    st.tuples(SIDES, SIDES).map(lambda shape: (shape, {"label": "matrix"})),
    st.tuples(SIDES, SIDES, SIDES).map(lambda shape: (shape, {"label": "matrix"})),
    st.tuples(SIDES, SIDES, SIDES).map(lambda shape: (shape, {"label": "convolution"})),
    st.tuples(SIDES, SIDES, SIDES).map(lambda shape: (shape, {"label": "convolution", "outputs_last": True})),
    SIDES.map(lambda side: ((side, 3 * side), {"label": "matrix", "name": "attention.qkv.weight"})),
)
"""Shapes, and what gives them axes of every kind: split, reordered, or as they are."""


@hypothesis.given(sizes=SIZES, largest=LARGEST)
def test_tiles_are_the_fewest_and_of_about_the_same_size(sizes: tuple[int, int, int], largest: int) -> None:
    tiles = tiling(sizes, largest)
    assert max(tiles.tile) <= largest
    for side, count, size in zip(tiles.tile, tiles.grid, sizes[1:], strict=True):
        assert count == math.ceil(size / largest), "there are no more tiles than needed"
        assert 0 <= side * count - size < count, "a tile is padded by less than one place for each of the others"
    assert tiles.count == sizes[0] * math.prod(tiles.grid) == len(tiles.sides())
    assert tiles.shape == tuple(sorted(tiles.tile)) and tiles.is_turned == (tiles.shape != tiles.tile)


@hypothesis.given(sizes=SIZES, largest=LARGEST)
def test_transposed_matrices_have_transposed_tiles(sizes: tuple[int, int, int], largest: int) -> None:
    batch, rows, columns = sizes
    one, other = tiling(sizes, largest), tiling((batch, columns, rows), largest)
    assert (one.tile, one.shape) == (other.tile[::-1], other.shape)
    assert sorted(one.sides()) == sorted(other.sides())


def test_129_rows_are_65_and_64() -> None:
    tiles = tiling((1, 129, 129), 128)
    assert (tiles.tile, tiles.grid) == ((65, 65), (2, 2))
    np.testing.assert_array_equal(tiles.sides(), [65, 65, 65, 64])


@hypothesis.given(tensor=TENSORS, largest=st.integers(1, 7))
@FEW
def test_cutting_covers_every_coordinate_once_and_joining_undoes_it(
    tensor: tuple[tuple[int, ...], dict[str, Any]], largest: int
) -> None:
    shape, options = tensor
    _, axes, _ = describe(shape, **options)
    assert axes is not None
    tiles = tiling(axes.sizes, largest)
    numbers = np.arange(1, 1 + math.prod(shape), dtype=np.float32).reshape(shape)
    rows = jax.jit(lambda tensor: cut(tensor, axes, tiles))(numbers)
    assert rows.shape == (tiles.count, *tiles.shape)
    present = np.asarray(rows) > 0
    np.testing.assert_array_equal(np.sort(np.asarray(rows)[present]), numbers.reshape(-1))
    np.testing.assert_array_equal(jax.jit(lambda rows: join(rows, shape, axes, tiles))(rows), numbers)
    heights, widths = present.any(axis=2).sum(axis=1), present.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(heights * widths, present.sum(axis=(1, 2)), "padding is at the far ends")
    np.testing.assert_array_equal(tiles.sides(), np.maximum(heights, widths))


@pytest.mark.parametrize(("shape", "largest"), [((7, 5), 3), ((5, 7), 3), ((4, 9), 9), ((8, 6), 3)])
def test_a_tile_is_a_block_of_the_matrix(shape: tuple[int, int], largest: int) -> None:
    _, axes, _ = describe(shape, label="matrix")
    assert axes is not None and axes.sizes == (1, *shape)
    tiles = tiling(axes.sizes, largest)
    matrix = np.arange(1, 1 + math.prod(shape), dtype=np.float32).reshape(shape)
    height, width = tiles.tile
    padded = np.pad(matrix, [(0, height), (0, width)])
    down, across = tiles.grid
    blocks = [
        padded[height * i : height * (i + 1), width * j : width * (j + 1)] for i in range(down) for j in range(across)
    ]
    expected = np.stack([block.T if tiles.is_turned else block for block in blocks])
    np.testing.assert_array_equal(cut(jnp.asarray(matrix), axes, tiles), expected)
