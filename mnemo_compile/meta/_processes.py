"""The processes of one run, on one host or several: how they find each other and how they agree."""

import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from ..errors import MnemoError, UsageError

T = TypeVar("T")
Tree = TypeVar("Tree", bound=PyTree[np.ndarray])
AUTO = "auto"
MEETING_SECONDS = 300
"""How long processes wait for each other at the start."""
SHUTDOWN_SECONDS = 20
"""How long a process that fails waits for the others, which notice when it is gone."""


class Place(NamedTuple):
    """The place of a process in a run of several. If the coordinator is `auto`, the environment has the rest."""

    coordinator: str
    """HOST:PORT, at which process 0 listens."""
    processes: int | None = None
    """How many processes the run has."""
    process: int | None = None
    """The number of this process, from 0."""

    @property
    def options(self) -> tuple[str, ...]:
        """The place as options of the command line."""
        numbers = {"--processes": self.processes, "--process": self.process}
        options = (part for name, number in numbers.items() if number is not None for part in (name, str(number)))
        return ("--coordinator", self.coordinator, *options)


def join(place: Place) -> None:
    """Meets the other processes. It must come before anything else asks JAX for its devices.

    Raises `UsageError` if `auto` finds nothing in the environment, and `MnemoError` if the processes do not meet.
    """
    coordinator, processes, process = place
    waits: dict[str, Any] = {
        "initialization_timeout": MEETING_SECONDS,
        "shutdown_timeout_seconds": SHUTDOWN_SECONDS,
    }
    try:
        if coordinator == AUTO:
            jax.distributed.initialize(**waits)
        else:
            if process:
                _reach(coordinator)
            jax.distributed.initialize(coordinator, processes, process, cluster_detection_method="deactivate", **waits)
    except ValueError:
        raise UsageError(
            "no cluster was recognised, as of Slurm, Open MPI or a TPU pod; "
            "say where to meet with --coordinator HOST:PORT, --processes and --process"
        ) from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise MnemoError(
            f"the processes did not meet at {coordinator} ({reason}); start all of them with the same --coordinator"
        ) from None
    devices = Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        numbers = ", ".join(str(devices[each]) for each in sorted(devices))
        raise UsageError(f"the processes have different numbers of devices ({numbers}); give each as many")


def leave() -> None:
    """Parts from the other processes, which do the same. Otherwise they would fail when this one ends."""
    jax.distributed.shutdown()


def _reach(coordinator: str) -> None:
    """Waits until somebody listens there. If nobody does, JAX would abort the process."""
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + MEETING_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() >= until:
                raise MnemoError(
                    f"nobody listens at {coordinator} ({error.strerror or error}); "
                    f"start process 0 there, and the others within {MEETING_SECONDS} s"
                ) from None
        time.sleep(0.2)


def is_first() -> bool:
    """Whether this is the process that writes and decides."""
    return jax.process_index() == 0


def gathered(values: np.ndarray) -> np.ndarray:
    """The exact values of all processes, with shape `processes *shape`. All processes have to call this."""
    # As bytes: JAX would round values of types that it does not have.
    content = multihost_utils.process_allgather(np.atleast_1d(values).view(np.uint8))
    return np.ascontiguousarray(content).view(values.dtype).reshape(-1, *values.shape)


def first_does(action: Callable[[], T]) -> T | None:
    """Runs an action in the first process only. If it fails, all processes raise."""
    if jax.process_count() == 1:
        return action()
    result, error = None, None
    if is_first():
        try:
            result = action()
        except Exception as caught:
            error = caught
    failed = gathered(np.array(error is not None)).any()
    if error is not None:
        raise error
    if failed:
        raise MnemoError("the first process of the run stopped; its message says why")
    return result


def from_first(tree: Tree) -> Tree:
    """The exact arrays of the first process. The others call this with arrays of the same shapes."""
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    # As bytes: a sum, which is how they are sent, would lose the sign of a zero.
    content = np.concatenate([np.atleast_1d(leaf).reshape(-1).view(np.uint8) for leaf in leaves])
    sent = np.asarray(multihost_utils.broadcast_one_to_all(content))
    ends = np.cumsum([leaf.nbytes for leaf in leaves])[:-1]
    parts = zip(np.split(sent, ends), leaves, strict=True)
    return structure.unflatten([part.view(leaf.dtype).reshape(leaf.shape) for part, leaf in parts])


def say(text: str) -> None:
    """Prints a message on stderr, in the first process only."""
    if is_first():
        print(text, file=sys.stderr, flush=True)


@contextmanager
def explaining_lost_processes() -> Iterator[None]:
    """Turns what JAX raises when another process is gone into one sentence."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        # JAX raises the statuses of its collectives as one or the other; they begin with a code.
        if jax.process_count() == 1 or not re.match("[A-Z_]+: ", reason):
            raise
        raise MnemoError(
            f"a process of the run failed or is gone ({reason}); see what the others say, then start all with --resume"
        ) from None
