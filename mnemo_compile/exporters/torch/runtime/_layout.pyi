"""The types of `_layout.py`, of which an exported package holds a copy."""

from mnemo_compile.step._layout import *  # noqa: F403
