"""The types of `_plan.py`, of which an exported package holds a copy."""

from mnemo_compile.step._plan import *  # noqa: F403
