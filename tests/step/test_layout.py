"""The arithmetic of shapes: chunks, slots and packed rows."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np

from mnemo_compile.step import chunk_count, Layout, MemorySlot, Role, ROLES, sampled_chunks, shape_numbers, shape_role

SHAPES = st.lists(st.integers(1, 9), max_size=4).map(tuple)
SLOTS = st.builds(
    MemorySlot,
    name=st.just("slot"),
    shape=st.lists(st.integers(1, 4), max_size=2).map(tuple),
    per=st.sampled_from(["coordinate", "chunk"]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    roles=st.none() | st.lists(st.sampled_from(ROLES), unique=True).map(tuple),
)


@hypothesis.given(shapes=st.lists(SHAPES, min_size=1, max_size=4), length=st.integers(1, 40), sample=st.integers(1, 5))
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
        np.testing.assert_array_equal(row, np.array([shape_numbers(shape)[name] for shape in shapes], np.float32))


@hypothesis.given(slot=SLOTS, shape=SHAPES, length=st.integers(1, 40))
def test_a_slot_has_as_many_numbers_in_rows_as_in_a_tensor(slot: MemorySlot, shape: tuple, length: int) -> None:
    chunks = chunk_count(math.prod(shape), length)
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


@hypothesis.given(shape=SHAPES, role=st.none() | st.sampled_from(ROLES))
def test_numbers_of_a_shape(shape: tuple, role: str | None) -> None:
    numbers = shape_numbers(shape, role)
    assert numbers["coordinates"] == math.prod(shape)
    assert ROLES[int(numbers["role"])] == (role or shape_role(shape))
    assert numbers["matrix"] == (len(shape) > 1)
    longest = max(shape, default=1)
    assert math.isclose(numbers["aspect"], longest / (math.prod(shape) / longest) if len(shape) > 1 else 1)
