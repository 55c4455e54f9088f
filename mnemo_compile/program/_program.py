"""The representation in the middle: a phase as typed equations in static single assignment."""

import collections
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Dim = int | str
"""A size, or the name of one that is free, such as `rows`."""

Shape = tuple[Dim, ...]

_SHORT = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64"}


@dataclasses.dataclass(frozen=True)
class Value:
    """A named array."""

    name: str
    shape: tuple[Dim, ...]
    dtype: str

    @property
    def type(self) -> str:
        """Such as `f32[rows, 64]`."""
        return f"{_SHORT.get(self.dtype, self.dtype)}[{', '.join(map(str, self.shape))}]"

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclasses.dataclass(frozen=True)
class Literal:
    """A number that stands in the cell's code, or an entry of a weight where a pass asks for one by one."""

    value: float | int | bool
    dtype: str

    @property
    def shape(self) -> tuple[Dim, ...]:
        return ()

    def __str__(self) -> str:
        return repr(self.value)


Operand = Value | Literal


@dataclasses.dataclass(frozen=True)
class Equation:
    """One operation. `source` is the line of the cell's code that it comes from, such as `_memory.py:54`.

    `params` are plain data, but for the `body` of a `call`, which is a `Program`.
    """

    primitive: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Value, ...]
    params: Mapping[str, Any]
    source: str

    @property
    def output(self) -> Value:
        """The output; every primitive of the closed set has one."""
        return self.outputs[0]

    @property
    def body(self) -> "Program | None":
        """What a `call` does."""
        return self.params.get("body")

    def __str__(self) -> str:
        params = "".join(f", {name}={_show(value)}" for name, value in self.params.items() if name != "body")
        left = ", ".join(f"{output}: {output.type}" for output in self.outputs)
        return f"{left} = {self.primitive}({', '.join(map(str, self.inputs))}{params})"


@dataclasses.dataclass(frozen=True)
class Program:
    """A phase: equations in order of execution, from named inputs and weights to named outputs.

    **Arguments:**

    - `name`: of the phase.
    - `inputs`: arrays that change from step to step.
    - `weights`: arrays of the cell, and arrays that depend on nothing else.
    - `equations`: each value is assigned once, before it is used.
    - `outputs`: pairs of name and operand.
    - `arrays`: the content of each weight, by name.
    """

    name: str
    inputs: tuple[Value, ...]
    weights: tuple[Value, ...]
    equations: tuple[Equation, ...]
    outputs: tuple[tuple[str, Operand], ...]
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @functools.cached_property
    def uses(self) -> Mapping[Operand, int]:
        """How often each operand is read, by equations and as an output; 0 for any other operand."""
        read = [operand for equation in self.equations for operand in equation.inputs]
        return collections.Counter([*read, *(operand for _, operand in self.outputs)])

    @functools.cached_property
    def producers(self) -> Mapping[Operand, Equation]:
        """The equation that computes each value. Inputs, weights and literals have none."""
        return {output: equation for equation in self.equations for output in equation.outputs}

    def __str__(self) -> str:
        width = max((len(str(equation)) for equation in self.equations), default=0)
        return "\n".join([f"program {self.name}", *(f"  {line}" for line in self._lines(width))])

    def _lines(self, width: int) -> Iterator[str]:
        yield from (f"input {value}: {value.type}" for value in self.inputs)
        yield from (f"weight {value}: {value.type}" for value in self.weights)
        for equation in self.equations:
            yield f"{str(equation):<{width}}  # {equation.source}"
            if equation.body is not None:
                yield from (f"  {line}" for line in equation.body._lines(width - 2))
        yield from (f"output {name} = {operand}" for name, operand in self.outputs)


def dims(shape: Sequence[Any]) -> Shape:
    """A shape of JAX as plain data."""
    return tuple(int(size) if isinstance(size, int | np.integer) else str(size) for size in shape)


def is_sized(shape: Shape) -> bool:
    """Whether no size of the shape is free."""
    return all(isinstance(size, int) for size in shape)


def size_of(shape: Sequence[Dim]) -> int:
    """Places in an array of one row."""
    return math.prod(1 if isinstance(size, str) else size for size in shape)


def _show(value: Any) -> str:
    return f"({', '.join(map(_show, value))})" if isinstance(value, tuple) else str(value)
