"""Fractals of a class look alike."""

from tests.meta.tasks.data.neighbours import assert_neighbours_tell_labels


def test_fractals_of_a_class_look_alike() -> None:
    assert_neighbours_tell_labels({"kind": "fractals", "side": 12})
