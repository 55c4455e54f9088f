"""Compiled programs, kept on disk from one run to the next."""

import jax

from .._cache import cache_folder

PROGRAM_BYTES = 4 * 2**30
"""Compiled programs that are kept; those not used for longest go."""


def keep_compiled_programs() -> None:
    """From now on what JAX compiles in this process is kept, so that the same starts in seconds the next time.

    A folder that the user has named to JAX stays the one.
    """
    if getattr(jax.config, "jax_compilation_cache_dir") is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))
        # With a limit JAX locks the folder, so that runs side by side read nothing half written.
        jax.config.update("jax_compilation_cache_max_size", PROGRAM_BYTES)
