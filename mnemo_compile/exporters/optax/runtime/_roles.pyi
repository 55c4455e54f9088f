"""The types of `_roles.py`, of which an exported package holds a copy."""

from mnemo_compile.step._roles import *  # noqa: F403
