"""What a phase over chunks computes of its tensor alone, taken out of it, to be computed once a tensor."""

import dataclasses
from collections.abc import Mapping

from ...program import dce, Equation, Literal, Operand, Program, Value
from ..python._source import is_chunked


def separate(program: Program, chunk_length: int) -> tuple[Program | None, Program]:
    """Cuts a phase over chunks in two.

    **Arguments:**

    - `program`: the phase. Of its inputs `param`, `grad`, `valid` and `memory.…` have a row a chunk, and all others
        repeat the row of the chunk's tensor.
    - `chunk_length`: coordinates in a chunk.

    **Returns:**

    The program `prepare_<phase>` over tensors, or None where there is nothing to prepare, and what is left of the
    phase. The first one's outputs are inputs `<phase>.…` of the second. Where all chunks are of one tensor, the second
    may be given a single row in place of a repeated one: it spreads implicitly.
    """
    program = _tensors_first(program)
    narrow = _of_tensors(program)
    cut = _Cut(program)
    for equation in program.equations:
        if equation.output in narrow:
            cut.before.append(equation)
            continue
        # Concatenation does not spread.
        cross = cut.spread if equation.primitive == "concatenate" else cut.cross
        inputs = tuple(cross(o, equation) if o in narrow else o for o in equation.inputs)
        cut.after.append(dataclasses.replace(equation, inputs=inputs))
    last = program.equations[-1] if program.equations else None
    results = tuple((name, cut.spread(o, last) if o in narrow else o) for name, o in program.outputs)
    entering = (*program.inputs, *cut.entering)
    rest = dce(dataclasses.replace(program, inputs=entering, equations=tuple(cut.after), outputs=results))
    if not any(map(is_chunked, rest.inputs)):
        sized = next(filter(is_chunked, entering), Value("grad", ("rows", chunk_length), "float32"))
        rest = dataclasses.replace(rest, inputs=(*rest.inputs, sized))
    if not cut.outputs:
        return None, rest
    name = f"prepare_{program.name}"
    first = dataclasses.replace(program, name=name, equations=tuple(cut.before), outputs=tuple(cut.outputs.items()))
    return dce(first), rest


class _Cut:
    """The two halves while they are made."""

    def __init__(self, program: Program):
        self.program = program
        self.before: list[Equation] = []
        self.after: list[Equation] = []
        self.entering: list[Value] = []
        self.outputs: dict[str, Operand] = {}
        self._seen: dict[Operand, Value] = {}

    def cross(self, operand: Operand, user: Equation | None) -> Operand:
        """A tensor's value as the chunks see it. Rows enter as the first axis, from where they can be repeated."""
        if not isinstance(operand, Value) or operand in self.program.inputs:
            return operand
        if operand not in self._seen:
            axis = operand.shape.index("rows")
            turned = (axis, *(i for i in range(len(operand.shape)) if i != axis))
            entering = Value(
                f"{self.program.name}.{operand.name}", tuple(operand.shape[i] for i in turned), operand.dtype
            )
            self.entering.append(entering)
            self._seen[operand] = entering
            self.outputs[entering.name] = operand
            source = user.source if user is not None else ""
            if axis:
                first = dataclasses.replace(entering, name=f"{operand.name}.of_tensors")
                self.before.append(Equation("transpose", (operand,), (first,), {"permutation": turned}, source))
                self.outputs[entering.name] = first
                back = {"permutation": tuple(map(turned.index, range(len(turned))))}
                self.after.append(Equation("transpose", (entering,), (operand,), back, source))
                self._seen[operand] = operand
        return self._seen[operand]

    def spread(self, operand: Operand, user: Equation | None) -> Operand:
        """A tensor's value with a row for each chunk."""
        assert isinstance(operand, Value)
        spread = dataclasses.replace(operand, name=f"{operand.name}.of_chunks")
        source = user.source if user is not None else ""
        self.after.append(Equation("broadcast", (self.cross(operand, user),), (spread,), {}, source))
        return spread


def _of_tensors(program: Program) -> set[Operand]:
    """The inputs and results that depend on what the chunks of a tensor share, and on nothing else but weights."""
    narrow: set[Operand] = {value for value in program.inputs if not is_chunked(value)}
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
    """(x + t) + c as x + (t + c), where only x has a row a chunk: one pass over the chunks less."""
    narrow = _of_tensors(program)
    uses = count_uses(program)
    makers: dict[Operand, Equation] = {}
    equations: list[Equation] = []
    for equation in program.equations:
        found = _sum_with_tensor(equation, makers, narrow, uses)
        if found is not None:
            maker, inner, tensors, rest = found
            total = Value(f"{equation.output.name}.of_tensors", tensors.shape, equation.output.dtype)
            equations.remove(maker)
            equations.append(Equation("add", (tensors, rest), (total,), {}, equation.source))
            equation = dataclasses.replace(equation, inputs=(inner, total))
            narrow.add(total)
        makers.update((output, equation) for output in equation.outputs)
        equations.append(equation)
    return dataclasses.replace(program, equations=tuple(equations))


def _sum_with_tensor(
    equation: Equation, makers: Mapping[Operand, Equation], narrow: set[Operand], uses: Mapping[Operand, int]
) -> tuple[Equation, Operand, Operand, Operand] | None:
    """For (x + t) + c: what makes the inner sum, and x, t and c."""
    if equation.primitive != "add":
        return None
    for outer, rest in (equation.inputs, equation.inputs[::-1]):
        maker = makers.get(outer)
        if maker is None or maker.primitive != "add" or uses[outer] > 1:
            continue
        for inner, tensors in (maker.inputs, maker.inputs[::-1]):
            is_wide = isinstance(inner, Value) and inner not in narrow
            fits = isinstance(rest, Literal) or (rest in narrow and rest.shape == tensors.shape)
            if is_wide and tensors in narrow and fits:
                return maker, inner, tensors, rest
    return None


def count_uses(program: Program) -> Mapping[Operand, int]:
    """How often each operand is used, by equations and as an output."""
    uses: dict[Operand, int] = {}
    for operand in [o for e in program.equations for o in e.inputs] + [operand for _, operand in program.outputs]:
        uses[operand] = uses.get(operand, 0) + 1
    return uses
