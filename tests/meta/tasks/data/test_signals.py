"""A signal looks like its class's template."""

from tests.meta.tasks.data.neighbours import assert_neighbours_tell_labels


def test_without_noise_signals_of_a_class_look_alike() -> None:
    assert_neighbours_tell_labels({"kind": "signals", "noise": 0})
