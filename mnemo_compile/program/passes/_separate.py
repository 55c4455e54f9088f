"""What a phase over chunks computes of its tensor alone, taken out of it, so that it is computed once per tensor."""

import dataclasses

from ...step import group_of, OF_PARTS
from .._program import Equation, Literal, Operand, Program, Value
from .._rewrite import names_of, Replacement, rewrite, Rewriter
from ._dce import dce


def is_of_chunks(value: Value) -> bool:
    """Whether an input of a phase over chunks holds a row for each chunk."""
    return group_of(value.name) in OF_PARTS


def separate(program: Program, chunk_length: int) -> tuple[Program | None, Program]:
    """Cuts a phase over chunks in two: what is the same for all chunks of a tensor, and the rest.

    **Arguments:**

    - `program`: the phase. Of its inputs `param`, `grad`, `valid` and `memory.…` have a row per chunk, and all others
        repeat the row of the chunk's tensor.
    - `chunk_length`: coordinates in a chunk.

    **Returns:**

    The program `prepare_<phase>` over tensors, or None where there is nothing to prepare, and what is left of the
    phase. The outputs of the first are inputs `<phase>.…` of the second. Where all chunks are of one tensor, the second
    may have a single row in place of a repeated one: it broadcasts implicitly.
    """
    program = _tensors_first(program)
    narrow = _of_tensors(program)
    halves = _Halves(program)
    for equation in program.equations:
        if equation.output in narrow:
            halves.before.append(equation)
            continue
        # Concatenation does not broadcast.
        cross = halves.repeat if equation.primitive == "concatenate" else halves.cross
        inputs = tuple(cross(o, equation.source) if o in narrow else o for o in equation.inputs)
        halves.after.append(dataclasses.replace(equation, inputs=inputs))
    last = program.equations[-1].source if program.equations else ""
    outputs = tuple((name, halves.repeat(o, last) if o in narrow else o) for name, o in program.outputs)
    entering = (*program.inputs, *halves.entering)
    rest = dce(dataclasses.replace(program, inputs=entering, equations=tuple(halves.after), outputs=outputs))
    if not any(map(is_of_chunks, rest.inputs)):
        sized = next(filter(is_of_chunks, entering), Value("grad", ("rows", chunk_length), "float32"))
        rest = dataclasses.replace(rest, inputs=(*rest.inputs, sized))
    if not halves.outputs:
        return None, rest
    name, results = f"prepare_{program.name}", tuple(halves.outputs.items())
    return dce(dataclasses.replace(program, name=name, equations=tuple(halves.before), outputs=results)), rest


class _Halves:
    """The two programs while they are made."""

    def __init__(self, program: Program):
        self.program = program
        self.names = names_of(program)
        self.before: list[Equation] = []
        self.after: list[Equation] = []
        self.entering: list[Value] = []
        self.outputs: dict[str, Operand] = {}
        self._crossed: dict[Operand, Value] = {}
        self._repeated: dict[Operand, Value] = {}

    def cross(self, operand: Operand, source: str) -> Operand:
        """A tensor's value as the chunks see it. Rows enter as the first axis, where they can be repeated."""
        if not isinstance(operand, Value) or operand in self.program.inputs:
            return operand
        if operand not in self._crossed:
            self._crossed[operand] = self._enter(operand, source)
        return self._crossed[operand]

    def _enter(self, operand: Value, source: str) -> Value:
        axis = operand.shape.index("rows")
        order = (axis, *(i for i in range(len(operand.shape)) if i != axis))
        shape = tuple(operand.shape[i] for i in order)
        entering = Value(self.names.fresh(f"{self.program.name}.{operand.name}"), shape, operand.dtype)
        self.entering.append(entering)
        self.outputs[entering.name] = operand
        if axis == 0:
            return entering
        first = dataclasses.replace(entering, name=self.names.fresh(f"{operand.name}.of_tensors"))
        self.before.append(Equation("transpose", (operand,), (first,), {"permutation": order}, source))
        self.outputs[entering.name] = first
        back = {"permutation": tuple(map(order.index, range(len(order))))}
        self.after.append(Equation("transpose", (entering,), (operand,), back, source))
        return operand

    def repeat(self, operand: Operand, source: str) -> Operand:
        """A tensor's value with a row for each chunk."""
        assert isinstance(operand, Value)
        if operand not in self._repeated:
            crossed = self.cross(operand, source)
            repeated = dataclasses.replace(operand, name=self.names.fresh(f"{operand.name}.of_chunks"))
            self._repeated[operand] = repeated
            self.after.append(Equation("broadcast", (crossed,), (repeated,), {}, source))
        return self._repeated[operand]


def _of_tensors(program: Program) -> set[Operand]:
    """The inputs and results that depend on what the chunks of a tensor have in common, and on weights."""
    narrow: set[Operand] = {value for value in program.inputs if not is_of_chunks(value)}
    constant: set[Operand] = set(program.weights)
    for equation in program.equations:
        if equation.primitive == "broadcast" and "rows" in equation.output.shape:
            continue
        if all(isinstance(o, Literal) or o in constant for o in equation.inputs):
            constant.update(equation.outputs)
        elif all(isinstance(o, Literal) or o in constant or o in narrow for o in equation.inputs):
            narrow.update(equation.outputs)
    return narrow


def _tensors_first(program: Program) -> Program:
    """(x + t) + c as x + (t + c), where only x has a row per chunk: one pass over the chunks less."""
    narrow = _of_tensors(program)

    def rule(rewriter: Rewriter, equation: Equation) -> Replacement:
        terms = _sum_with_tensor(rewriter, equation, narrow)
        if terms is None:
            return equation
        inner_sum, inner, tensors, rest = terms
        rewriter.equations.remove(inner_sum)
        name = f"{equation.output.name}.of_tensors"
        total = rewriter.emit(
            equation, "add", tensors, rest, shape=tensors.shape, dtype=equation.output.dtype, name=name
        )
        narrow.add(total)
        return dataclasses.replace(equation, inputs=(inner, total))

    return rewrite(program, rule)


def _sum_with_tensor(
    rewriter: Rewriter, equation: Equation, narrow: set[Operand]
) -> tuple[Equation, Operand, Operand, Operand] | None:
    """For (x + t) + c: what computes the inner sum, and x, t and c."""
    if equation.primitive != "add":
        return None
    for outer, rest in (equation.inputs, equation.inputs[::-1]):
        inner_sum = rewriter.producer(outer, "add")
        if inner_sum is None or rewriter.program.uses[outer] > 1:
            continue
        for inner, tensors in (inner_sum.inputs, inner_sum.inputs[::-1]):
            is_wide = isinstance(inner, Value) and inner not in narrow
            fits = isinstance(rest, Literal) or (rest in narrow and rest.shape == tensors.shape)
            if is_wide and tensors in narrow and fits:
                return inner_sum, inner, tensors, rest
    return None
