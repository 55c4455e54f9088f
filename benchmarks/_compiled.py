"""Reads the text of a program that XLA has compiled: kernels, launches, products of matrices and donated buffers."""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

FREE = frozenset(
    ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "partition-id")
)
"""Instructions that run nothing."""


class Instruction(NamedTuple):
    """A line of the text."""

    shape: str
    kind: str
    line: str

    @property
    def is_kernel(self) -> bool:
        """Whether it runs something by itself. An empty array is not computed."""
        is_empty = re.match(r"\w+\[(?:\d+,)*0(?:,\d+)*\]", self.shape) is not None
        return not is_empty and self.kind not in FREE | {"while", "conditional", "call"}

    def names(self, role: str) -> list[str]:
        """The computations that it uses in a role, such as the `body` of a loop."""
        return re.findall(rf"{role}=%?([\w.\-]+)", self.line)

    @property
    def times(self) -> int:
        """How often a loop runs, 1 where the program does not say it."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.line)
        return int(known[1]) if known else 1


class Compiled:
    """The text of a compiled program."""

    def __init__(self, text: str):
        self._header = text.split("\n", 1)[0]
        self._computations: dict[str, list[Instruction]] = {}
        found = re.findall(r"^(ENTRY )?%?([\w.\-]+) [^\n]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
        for entry, name, body in found:
            self._computations[name] = _instructions(body)
            if entry:
                self._entry = name

    @property
    def kernels(self) -> int:
        """Instructions that run something. A loop's body counts once."""
        return self._count(lambda instruction: 1)

    @property
    def launches(self) -> int:
        """Instructions that run something, as often as they run."""
        return self._count(lambda instruction: instruction.times)

    @property
    def products(self) -> int:
        """Different products of matrices."""
        products = set()
        for instructions in self._computations.values():
            shapes = {i.line.split(" = ")[0].split()[-1]: i.shape for i in instructions}
            for instruction in instructions:
                if instruction.kind == "dot":
                    operands = re.findall(r"%[\w.\-]+", instruction.line.split(" dot(")[1].split(")")[0])
                    axes = re.findall(r"contracting_dims=\{[\d,]*\}", instruction.line)
                    products.add((instruction.shape, *(shapes[operand] for operand in operands), *axes))
        return len(products)

    @functools.cached_property
    def aliased(self) -> set[int]:
        """The arguments whose buffers an output takes over."""
        return {int(place) for place in re.findall(r"\{[\d, ]*\}: \((\d+), \{\}", self._header)}

    def _count(self, times: Callable[[Instruction], int]) -> int:
        def count(name: str) -> int:
            total = 0
            for instruction in self._computations[name]:
                inner = {"while": "body", "call": "to_apply", "conditional": "computation"}
                if instruction.kind in inner:
                    total += times(instruction) * sum(map(count, instruction.names(inner[instruction.kind])))
                else:
                    total += instruction.is_kernel
            return total

        return count(self._entry)


def _instructions(body: str) -> list[Instruction]:
    found = re.finditer(r"^ +(?:ROOT )?%?[\w.\-]+ = (\([^\n]*?\)|\S+) ([\w\-]+)\([^\n]*", body, re.MULTILINE)
    return [Instruction(match[1], match[2], match[0]) for match in found]
