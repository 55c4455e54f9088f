"""Interruption by a signal: the run saves its state first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """A signal stopped the run after this meta-step, and its state is saved."""


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """A list that gets the first SIGINT or SIGTERM; a second one ends the process as usual."""
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        received.append(number)
        for name in before:
            signal.signal(name, before[name])

    try:
        before = {name: signal.signal(name, receive) for name in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not on the main thread, where no signal arrives either
        before = {}
    try:
        yield received
    finally:
        for name in before:
            signal.signal(name, before[name])
