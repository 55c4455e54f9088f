"""References to cells: `name`, `name@1.2.0`, `name@^1`."""

import dataclasses
import re
from typing import NamedTuple

from ..errors import UsageError

_NAME = r"(?P<name>[a-z][a-z0-9]*(?:-[a-z0-9]+)*)"
_NUMBER = r"(?:0|[1-9]\d{0,8})"
_REFERENCE = re.compile(rf"{_NAME}(?:@(?P<caret>\^?)(?P<numbers>{_NUMBER}(?:\.{_NUMBER}){{0,2}}))?", re.ASCII)


class Version(NamedTuple):
    """A semantic version, ordered as such."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclasses.dataclass(frozen=True)
class Reference:
    """The name of a cell and a range of versions, from `lowest` up to but not including `limit`."""

    name: str
    lowest: Version = Version(0, 0, 0)
    limit: Version | None = None
    """None for no limit."""

    def accepts(self, version: Version) -> bool:
        """Whether the range holds this version."""
        return self.lowest <= version and (self.limit is None or version < self.limit)


def parse_version(text: str) -> Version:
    """Reads MAJOR.MINOR.PATCH."""
    if not re.fullmatch(rf"{_NUMBER}(?:\.{_NUMBER}){{2}}", text, re.ASCII):
        raise UsageError(f"'{text}' is not a version; write MAJOR.MINOR.PATCH, for example 1.0.0")
    return Version(*map(int, text.split(".")))


def is_reference(text: str) -> bool:
    """Whether the text is a name with or without versions."""
    return _REFERENCE.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """Reads `name`, `name@1.2.0`, `name@^1`, `name@^1.2` or `name@^1.2.0`.

    A caret admits later versions that do not change the first number that is not zero: `^1.2` admits 1.9.0 and not
    2.0.0, `^0.2` admits 0.2.5 and not 0.3.0.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None or (match["numbers"] and not match["caret"] and match["numbers"].count(".") != 2):
        raise UsageError(f"'{text}' is not a reference; write name, name@1.2.0, name@^1 or a folder")
    if match["numbers"] is None:
        return Reference(match["name"])
    numbers = [int(number) for number in match["numbers"].split(".")]
    lowest = Version(*numbers, *(0,) * (3 - len(numbers)))
    if not match["caret"]:
        return Reference(match["name"], lowest, lowest._replace(patch=lowest.patch + 1))
    raised = next((place for place, number in enumerate(numbers) if number), len(numbers) - 1)
    limit = [*numbers[:raised], numbers[raised] + 1, 0, 0][:3]
    return Reference(match["name"], lowest, Version(*limit))
