"""Compiling the programs of a run, side by side on all cores."""

import pathlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from ..errors import MnemoError

MAPS, MOST_MAPS = pathlib.Path("/proc/self/maps"), pathlib.Path("/proc/sys/vm/max_map_count")


def compile_in(
    pool: ThreadPoolExecutor, function: Callable[..., Any], inputs: Any, outputs: Any, *arguments: Any
) -> Future[Callable[..., Any]]:
    """The program of a function. `inputs` and `outputs` are the shardings of its arguments and results.

    XLA takes one core for half a minute per family: while one is compiled in the pool, the caller traces the next.
    """
    lowered = jax.jit(function, in_shardings=inputs, out_shardings=outputs).lower(*arguments)

    def program() -> Callable[..., Any]:
        _check_memory_maps()
        return lowered.compile()

    return pool.submit(program)


def _check_memory_maps() -> None:
    """Raises `MnemoError` where Linux has few memory maps left for this process.

    On a CPU, XLA takes a few thousand for a family, and LLVM aborts where there are none.
    """
    try:
        with MAPS.open("rb") as maps:
            count = sum(1 for _ in maps)
        most = int(MOST_MAPS.read_text())
    except OSError:
        # Another system, or one that does not say.
        return
    if count > 0.9 * most:
        raise MnemoError(
            f"compiled families take {count:,} of the {most:,} memory maps that Linux allows a process; "
            f"allow more with sudo sysctl -w vm.max_map_count=262144, or meta-train on fewer families"
        )
