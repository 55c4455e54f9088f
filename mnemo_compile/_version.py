"""The installed version of this package."""

import importlib.metadata

DISTRIBUTION = "mnemo-compile"


def version() -> str:
    """The installed version, or `0` in a source tree that was never installed."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "0"
