"""Repeated equations as a loop, so that a compiler meets them once."""

import dataclasses
from collections.abc import Sequence

from ...program import Equation, Operand, Program, Value

LEAST = 3
"""Rounds from which on a loop is made."""

Round = Sequence[Equation]
"""Equations of which the last one computes what the next round begins with."""


def roll(program: Program) -> Program:
    """Writes rounds of equal equations, each of which begins with the result of the one before, as one equation.

    Its primitive is `repeat`, with the number of rounds (`times`) and a program of one round (`body`), from what the
    round begins with to its result.
    """
    equations = program.equations
    for start in range(len(equations)):
        for length in range(2, (len(equations) - start) // LEAST + 1):
            rounds = _rounds(program, start, length)
            if len(rounds) >= LEAST:
                end = start + length * len(rounds)
                rolled = (*equations[:start], _repeat(program, rounds), *equations[end:])
                return dataclasses.replace(program, equations=rolled)
    return program


def bodies(program: Program) -> list[Program]:
    """The programs of the rounds that a program repeats."""
    return [e.body for e in program.equations if e.primitive == "repeat" and e.body is not None]


def _rounds(program: Program, start: int, length: int) -> list[Round]:
    """The equal rounds that begin at an equation."""
    cut = [program.equations[place : place + length] for place in range(start, len(program.equations), length)]
    first, second = cut[0], cut[1]
    pattern = _pattern(second, first[-1].output)
    begin = _begin(first, pattern)
    if begin is None or _pattern(first, begin) != pattern or not _is_closed(program, pattern, begin, second):
        return []
    rounds: list[Round] = [first]
    for before, after in zip(cut, cut[1:], strict=False):
        if _pattern(after, before[-1].output) != pattern or not _is_inner(program, before, after):
            break
        rounds.append(after)
    return rounds if _is_inner(program, rounds[-1], ()) else []


def _pattern(some: Round, begin: Operand) -> list[tuple[object, ...]]:
    """What a round computes, whatever its values are called."""
    places: dict[Operand, object] = {begin: "begin"}
    pattern: list[tuple[object, ...]] = []
    for place, equation in enumerate(some):
        inputs = tuple(places.get(operand, operand) for operand in equation.inputs)
        output = equation.output
        pattern.append((equation.primitive, dict(equation.params), inputs, output.shape, output.dtype))
        places[output] = place
    return pattern


def _begin(first: Round, pattern: list[tuple[object, ...]]) -> Operand | None:
    """The operand of the first round that stands where others read the round before."""
    for equation, (_, _, inputs, _, _) in zip(first, pattern, strict=True):
        if isinstance(inputs, tuple) and "begin" in inputs and len(inputs) == len(equation.inputs):
            return equation.inputs[inputs.index("begin")]
    return None


def _is_closed(program: Program, pattern: list[tuple[object, ...]], begin: Operand, some: Round) -> bool:
    """Whether a round reads only its beginning, weights and numbers, and gives what it begins with."""
    values = {operand for _, _, inputs, _, _ in pattern if isinstance(inputs, tuple) for operand in inputs}
    outer = {operand for operand in values if isinstance(operand, Value)} - set(program.weights)
    last = some[-1].output
    return not outer and isinstance(begin, Value) and (begin.shape, begin.dtype) == (last.shape, last.dtype)


def _is_inner(program: Program, some: Round, after: Round) -> bool:
    """Whether nothing else reads a round's values: its result may be read after the last round."""
    everything = [operand for equation in (*some, *after) for operand in equation.inputs]
    values = [equation.output for equation in (some if after else some[:-1])]
    return all(program.uses[value] == everything.count(value) for value in values)


def _repeat(program: Program, rounds: Sequence[Round]) -> Equation:
    first, last = rounds[0], rounds[-1][-1]
    begin = _begin(first, _pattern(rounds[1], first[-1].output))
    assert isinstance(begin, Value)
    read = {operand for equation in first for operand in equation.inputs}
    body = Program(
        f"{program.name}_round",
        (begin,),
        tuple(weight for weight in program.weights if weight in read),
        tuple(first),
        ((begin.name, first[-1].output),),
    )
    return Equation("repeat", (begin,), last.outputs, {"body": body, "times": len(rounds)}, last.source)
