"""The folder for files that can be made again."""

import os
import pathlib

import platformdirs


def cache_folder() -> pathlib.Path:
    """The folder of cells from remote zoos, verified packages, compiled programs, and baselines of this machine.

    It is `MNEMO_CACHE` if that is set, else the platform's folder for caches.
    """
    chosen = os.environ.get("MNEMO_CACHE")
    return pathlib.Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("mnemo-compile")
