"""Where things that can be made again are kept between runs."""

import os
import pathlib

import platformdirs


def cache_folder() -> pathlib.Path:
    """The folder of cells fetched from remote zoos, of compiled programs and of baselines measured here: `MNEMO_CACHE`,
    or the platform's place."""
    chosen = os.environ.get("MNEMO_CACHE")
    return pathlib.Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("mnemo-compile")
