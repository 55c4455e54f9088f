"""Compiled programs, kept on disk for the next run."""

import jax

from .._cache import cache_folder

PROGRAM_BYTES = 4 * 2**30
"""Largest size of the compiled programs on disk. The least recently used ones are deleted first."""


def keep_compiled_programs() -> None:
    """Makes JAX keep the programs that this process compiles, so that the same run starts in seconds the next time.

    If the user has set a folder for them, JAX keeps using it.
    """
    if getattr(jax.config, "jax_compilation_cache_dir") is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))
        # With a limit JAX locks the folder, so that runs side by side read nothing half written.
        jax.config.update("jax_compilation_cache_max_size", PROGRAM_BYTES)
