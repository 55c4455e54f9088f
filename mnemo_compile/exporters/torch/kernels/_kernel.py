"""A kernel while it is written."""

import textwrap
from collections.abc import Callable, Sequence

import numpy as np

from ....program import Names, Value
from ._places import Places
from ._symbols import Array, Grid, Label, Symbols, Term

HELPERS = (
    "add_dot",
    "chunk_places",
    "COLUMNS",
    "dot",
    "expm1",
    "from_base",
    "is_finite",
    "log1p",
    "narrow",
    "power",
    "sign",
    "strided_places",
    "tanh",
    "tile_order",
    "tile_places",
    "tile_pointers",
    "to_bfloat16",
)
"""What kernels use of `_kernel_parts`."""

ARGUMENTS = ("pointers", "rows", "options", "group", "tensors", "groups")
"""Arguments of all kernels."""
TABLES = ("table", "blocks", "starts", "lanes", *ARGUMENTS)
"""Arguments of kernels over chunks or tiles."""
KINDS = ("PARAM: tl.constexpr", "GRAD: tl.constexpr", "SLOTS: tl.constexpr", "PLAIN: tl.constexpr")
"""What the tensors of a launch have in common."""
BEGIN = (
    "block = tl.program_id(0)",
    "entry = table + tl.load(blocks + block).to(tl.int64) * COLUMNS",
    "row = tl.load(entry)",
    "number = tl.load(group + row)",
)
"""How kernels over chunks or tiles begin."""
_COUNTS = '["tensors", "groups", "offset", "count"]'
"""Parameters whose values make no kernel of their own."""


class Kernel:
    """The lines of a kernel, and the names in it.

    **Arguments:**

    - `name`: of the function.
    - `grid`: the axes of its blocks.
    - `parameters`: of the function, as they stand there.
    - `places`: of the numbers of tensors.
    - `taken`: names of the lines that are written by hand.
    """

    def __init__(self, name: str, grid: Grid, parameters: Sequence[str], places: Places, taken: Sequence[str]):
        self.name = name
        self.parameters = parameters
        self.places = places
        self.names = Names(["tl", "triton", *HELPERS, *(each.partition(":")[0] for each in parameters), *taken])
        self.symbols = Symbols(grid, self.names)

    @property
    def lines(self) -> list[str]:
        """What has been written so far."""
        return self.symbols.lines

    def text(self, head: Sequence[str], foot: Sequence[str] = (), *, loop: str = "") -> str:
        """The function, whose lines stand in a loop if one is given."""
        body = [loop, *(textwrap.indent(line, "    ") for line in self.lines)] if loop else self.lines
        arguments = "".join(f"    {parameter},\n" for parameter in self.parameters)
        signature = f"@triton.jit(do_not_specialize={_COUNTS})\ndef {self.name}(\n{arguments}):"
        inner = "\n".join([*head, *body, *foot])
        return f"{signature}\n{textwrap.indent(inner, '    ')}\n"

    def load(self, value: Value, at: Callable[[str, int], str], axes: frozenset[Label]) -> Array:
        """A value with a row per tensor, whose entries are read one by one.

        **Arguments:**

        - `value`: an input of the program.
        - `at`: gives the text of an entry, by the name and its place.
        - `axes`: block axes of the entries.
        """
        terms = np.empty([1 if isinstance(size, str) else size for size in value.shape], object)
        for number, place in enumerate(np.ndindex(*terms.shape)):
            terms[place] = self.symbols.assign(value.name, at(value.name, number), axes)
        return Array(terms, tuple(self.symbols.grid.of_tensors(value.shape)))

    def number(self, name: str, place: int, row: str, mask: str = "") -> str:
        """The text of a number of a tensor, or of a block of tensors."""
        beside = f", mask={mask}" if mask else ""
        if name in self.places.options:
            return f"tl.load(options + {self.places.options[name][0]} * groups + number{beside})"
        if name in self.places.state:
            return f"tl.load(state + {self.places.state[name][0] + place}{beside})"
        return f"tl.load(rows + {self.places.rows[name][0] + place} * tensors + {row}{beside})"


def one(term: Term, labels: Sequence[Label]) -> Array:
    """A term as an array."""
    terms = np.empty((1,) * len(labels), object)
    terms[(0,) * len(labels)] = term
    return Array(terms, tuple(labels))
