"""The arithmetic of shapes: chunks, slots and packed rows."""

import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np

from mnemo_compile.step import (
    chunk_count,
    describe,
    Layout,
    MemorySlot,
    reference,
    Role,
    ROLES,
    sampled_chunks,
    shape_numbers,
    tile_slots,
    TILED,
)
from mnemo_compile.step._layout import chunk_run

SHAPES = st.lists(st.integers(1, 9), max_size=4).map(tuple)
ANY_TIME = hypothesis.settings(deadline=None)
SLOTS = st.builds(
    MemorySlot,
    name=st.just("slot"),
    shape=st.lists(st.integers(1, 4), max_size=2).map(tuple),
    per=st.sampled_from(["coordinate", "chunk"]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    roles=st.none() | st.lists(st.sampled_from(ROLES), unique=True).map(tuple),
)


@hypothesis.given(shapes=st.lists(SHAPES, min_size=1, max_size=4), length=st.integers(1, 40), sample=st.integers(1, 5))
@ANY_TIME
def test_a_layout_holds_every_coordinate_once(shapes: list, length: int, sample: int) -> None:
    layout = Layout(tuple(shapes), length, sample)
    assert layout.valid.shape == (sum(layout.chunks), length)
    assert layout.valid.sum() == sum(map(math.prod, shapes))
    np.testing.assert_array_equal(layout.owner.sum(axis=0), layout.chunks)
    np.testing.assert_array_equal(layout.owner.sum(axis=1), 1)
    taken = range(sum(layout.chunks)) if layout.sampled is None else layout.sampled
    counts = layout.owner[np.array(taken)].sum(axis=0)
    np.testing.assert_array_equal(counts, [len(sampled_chunks(chunks, sample)) for chunks in layout.chunks])
    for name, row in layout.shape_rows.items():
        np.testing.assert_array_equal(
            row, np.array([shape_numbers(shape, length)[name] for shape in shapes], np.float32)
        )


@hypothesis.given(shapes=st.lists(SHAPES, min_size=1, max_size=3), length=st.integers(1, 40))
@hypothesis.settings(max_examples=4, deadline=None)
def test_packed_rows_hold_the_coordinates_in_order_and_zeros_in_padding(shapes: list, length: int) -> None:
    layout = Layout(tuple(shapes), length, 1)
    numbers = np.arange(1, 1 + sum(map(math.prod, shapes)), dtype=np.float32)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    tensors = [
        jnp.asarray(part.reshape(shape)) for part, shape in zip(np.split(numbers, ends[:-1]), shapes, strict=True)
    ]
    rows = np.asarray(reference.pack(layout, tensors))
    np.testing.assert_array_equal(rows[layout.valid], numbers)
    assert not rows[~layout.valid].any()
    for tensor, back in zip(tensors, reference.unpack(layout, jnp.asarray(rows)), strict=True):
        np.testing.assert_array_equal(tensor, back)


@hypothesis.given(shape=SHAPES, length=st.integers(1, 40))
def test_chunks_restart_after_the_fewest_trailing_axes_that_fill_a_chunk(shape: tuple, length: int) -> None:
    run = chunk_run(shape, length)
    products = [math.prod(shape[axis:]) for axis in range(len(shape))]
    assert run == min([product for product in products if product >= length], default=math.prod(shape))
    assert chunk_count(shape, length) == math.prod(shape) // run * math.ceil(run / length)
    assert chunk_count((0, *shape), length) == 0


@hypothesis.given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    shards=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    length=st.integers(1, 20),
)
@ANY_TIME
def test_shards_along_the_first_axis_have_the_chunks_of_the_whole(shape: tuple, shards: list, length: int) -> None:
    hypothesis.assume(math.prod(shape) >= length)
    whole = (sum(shards), *shape)
    layouts = [Layout(((rows, *shape),), length, 1) for rows in shards]
    np.testing.assert_array_equal(
        np.concatenate([layout.valid for layout in layouts]), Layout((whole,), length, 1).valid
    )
    assert chunk_count(whole, length) == sum(chunk_count((rows, *shape), length) for rows in shards)


@hypothesis.given(
    shapes=st.lists(SHAPES, min_size=1, max_size=4), length=st.integers(1, 40), tile=st.sampled_from([0, 3, 8])
)
@ANY_TIME
def test_a_tensor_is_in_tiles_or_in_the_rows_of_the_update(shapes: list, length: int, tile: int) -> None:
    layout = Layout(tuple(shapes), length, 1, tile)
    is_tiled = [bool(tile) and describe(shape).role in TILED for shape in shapes]
    assert sorted(layout.matrices) == [place for place, tiled in enumerate(is_tiled) if tiled]
    assert sorted(place for places in layout.tile_groups.values() for place in places) == sorted(layout.matrices)
    for (height, width), places in layout.tile_groups.items():
        assert height <= width <= tile
        assert all(layout.matrices[place][1].shape == (height, width) for place in places)
    owners = layout.owner[layout.elementwise]
    np.testing.assert_array_equal(
        owners.sum(axis=0),
        [0 if tiled else chunks for tiled, chunks in zip(is_tiled, layout.chunks, strict=True)],
    )


@hypothesis.given(slots=st.lists(SLOTS, max_size=4))
def test_tiled_tensors_have_the_slots_of_their_roles(slots: list[MemorySlot]) -> None:
    assert tile_slots(slots) == tuple(slot for slot in slots if slot.roles is None or {*slot.roles} & {*TILED})


@hypothesis.given(slot=SLOTS, shape=SHAPES, length=st.integers(1, 40))
def test_a_slot_has_as_many_numbers_in_rows_as_in_a_tensor(slot: MemorySlot, shape: tuple, length: int) -> None:
    chunks = chunk_count(shape, length)
    rows, stored = chunks * math.prod(slot.row_shape(length)), math.prod(slot.tensor_shape(shape, length))
    padding = 0 if slot.per == "chunk" else (chunks * length - math.prod(shape)) * math.prod(slot.shape)
    assert rows == stored + padding


@hypothesis.given(slot=SLOTS, chunks=st.integers(1, 9), length=st.integers(1, 40), role=st.sampled_from(ROLES))
def test_bytes_per_parameter_are_those_of_a_tensor_of_whole_chunks(
    slot: MemorySlot, chunks: int, length: int, role: Role
) -> None:
    size = {"float32": 4, "bfloat16": 2}[slot.dtype]
    stored = size * math.prod(slot.tensor_shape((chunks, length), length)) if slot.applies_to(role) else 0
    assert math.isclose(slot.bytes_per_parameter(role, length) * chunks * length, stored)


@hypothesis.given(shape=SHAPES, label=st.none() | st.sampled_from(["vector", "embedding", "head"]))
def test_numbers_of_a_shape(shape: tuple, label: str | None) -> None:
    described = describe(shape, label=label)
    numbers = shape_numbers(shape, 8, described)
    assert numbers["coordinates"] == math.prod(shape)
    assert numbers["run"] == chunk_run(shape, 8)
    assert ROLES[int(numbers["role"])] == described.role
    batch = 1 if described.axes is None else described.axes.sizes[0]
    assert numbers["area"] * batch == math.prod(shape)
    assert numbers["matrix"] == (len(shape) > 1)
    longest = max(shape, default=1)
    assert math.isclose(numbers["aspect"], longest / (math.prod(shape) / longest) if len(shape) > 1 else 1)
    if label is None:
        assert numbers == shape_numbers(shape, 8)


@hypothesis.given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=4) | st.lists(st.integers(1, 90), min_size=2, max_size=2),
    order=st.randoms(),
)
def test_a_transpose_has_the_same_numbers_but_for_where_chunks_restart(shape: list[int], order: Any) -> None:
    transposed = list(shape)
    order.shuffle(transposed)
    one, other = ({**shape_numbers(each, 8), "run": 0} for each in (shape, transposed))
    assert one == other
