"""Compiled programs, kept on disk for the next run."""

import contextlib
import pathlib

import filelock
import jax

from .._cache import cache_folder

PROGRAM_BYTES = 4 * 2**30
"""Largest size of the compiled programs on disk. The least recently used ones are deleted first."""


def keep_compiled_programs() -> None:
    """Makes JAX keep the programs that this process compiles, so that the same run starts in seconds the next time.

    If the user has set a folder for them, JAX keeps using it.
    """
    if getattr(jax.config, "jax_compilation_cache_dir") is None:
        folder = cache_folder() / "programs"
        remove_unfinished(folder)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # With a limit JAX locks the folder, so that runs side by side read nothing half written.
        jax.config.update("jax_compilation_cache_max_size", PROGRAM_BYTES)


def remove_unfinished(folder: pathlib.Path) -> None:
    """Removes the programs that a process has not written to the end, because it was stopped.

    JAX 0.10 would warn of such a program each time that it reads or writes one. It writes the program, and then the
    time of its last use.
    """
    if not folder.is_dir():
        return
    with contextlib.suppress(OSError, filelock.Timeout), filelock.FileLock(folder / ".lockfile", timeout=10):
        for program in folder.glob("*-cache"):
            if not program.with_name(program.name.removesuffix("cache") + "atime").exists():
                program.unlink()
