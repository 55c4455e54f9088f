"""When this process began to import the package."""

import time

START = time.time()
"""Seconds since the epoch. A source that is newer is not what this process runs."""
