"""Fields of configurations that were added after something was made with a configuration without them."""

from typing import Any

import pydantic


def added(default: Any) -> Any:
    """A field that is written down where it is not the default: what has it at that is what had no such field."""
    return pydantic.Field(default=default, exclude_if=lambda value: value == default)
