"""Names that are not taken: the one way in which the compiler makes them."""

import itertools
from collections.abc import Iterable, Iterator


def candidates(base: str) -> Iterator[str]:
    """`base`, `base_2`, `base_3` and so on."""
    yield base
    yield from (f"{base}_{count}" for count in itertools.count(2))


class Names:
    """The names that are taken in one program.

    **Arguments:**

    - `taken`: names that are taken from the start.
    """

    def __init__(self, taken: Iterable[str] = ()):
        self._taken = set(taken)

    def take(self, name: str) -> str:
        """This very name, which is taken from now on."""
        self._taken.add(name)
        return name

    def fresh(self, base: str) -> str:
        """The first candidate that is not taken; it is taken from now on."""
        return self.take(next(name for name in candidates(base) if name not in self._taken))
