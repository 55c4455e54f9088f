"""A figure stands where its label says."""

from tests.meta.tasks.data.neighbours import assert_neighbours_tell_labels


def test_without_noise_figures_at_a_place_look_alike() -> None:
    assert_neighbours_tell_labels({"kind": "shapes", "labels": "place", "noise": 0})
