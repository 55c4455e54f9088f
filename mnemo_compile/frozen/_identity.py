"""What names a frozen cell."""

from typing import NamedTuple


class Identity(NamedTuple):
    """The name and version of a frozen cell, and what it computes."""

    name: str
    version: str
    digest: str
    """The `canonical_digest` of configuration and weights."""

    @property
    def package(self) -> str:
        """The cell's name as the name of a Python package."""
        return self.name.replace("-", "_")
