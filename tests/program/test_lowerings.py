"""Passes for one target: what they make of a program, before and after side by side."""

import textwrap
from collections.abc import Callable

import numpy as np
import pytest

from mnemo_compile.program import (
    check,
    Equation,
    for_compiler,
    fuse,
    is_pointwise,
    Literal,
    Operand,
    Program,
    separate,
    unstack,
    Value,
)

HALF = Literal(0.5, "float32")
MIX = np.array([[1, 2], [3, 4]], np.float32)


def value(name: str, *shape: int | str) -> Value:
    return Value(name, shape, "float32")


def equation(primitive: str, output: Value, *inputs: Operand, **params: object) -> Equation:
    return Equation(primitive, inputs, (output,), params, "cell.py:1")


GRAD, PARAM, ROW = value("grad", "rows", 4), value("param", "rows", 4), value("context.row", "rows", 1)
A, B, C, D = (value(name, "rows", 4) for name in "abcd")
COLUMN, FLAT = value("column", "rows", 1), value("flat", "rows")
E, JOINED = value("e", "rows", 1), value("joined", "rows", 5)
U, V, UP, DOWN = value("grad.u", "rows"), value("grad.v", "rows"), value("up", 1, "rows"), value("down", 1, "rows")
STACK, GROWN, MIXED = (value(name, 2, "rows") for name in ("stack", "grown", "mixed"))
WEIGHT = value("mix", 2, 2)
PLACE = (
    equation("slice", COLUMN, A, axis=1, start=2, stop=3),
    equation("reshape", FLAT, COLUMN),
)


def pair(program: Program) -> tuple[Program, ...]:
    return tuple(part for part in separate(program, 4) if part is not None)


CASES: dict[str, tuple[Callable[[Program], Program | tuple[Program, ...]], tuple[Equation, ...], str, str]] = {
    "sums of products are single operations": (
        fuse,
        (
            equation("mul", A, GRAD, PARAM),
            equation("add", B, A, ROW),
            equation("mul", C, PARAM, HALF),
            equation("sub", D, B, C),
        ),
        """\
        program p
          input %grad: f32[rows, 4]
          input %param: f32[rows, 4]
          input %context.row: f32[rows, 1]
          %a: f32[rows, 4] = mul(%grad, %param)
          %b: f32[rows, 4] = add(%a, %context.row)
          %c: f32[rows, 4] = mul(%param, 0.5)
          %d: f32[rows, 4] = sub(%b, %c)
          output z = %d""",
        """\
        program p
          input %grad: f32[rows, 4]
          input %param: f32[rows, 4]
          input %context.row: f32[rows, 1]
          %b: f32[rows, 4] = addcmul(%context.row, %grad, %param, value=1.0)
          %d: f32[rows, 4] = add_scaled(%b, %param, alpha=-0.5)
          output z = %d""",
    ),
    "one place along an axis is an index, and a scale comes after it": (
        fuse,
        (equation("mul", A, GRAD, HALF), *PLACE),
        """\
        program p
          input %grad: f32[rows, 4]
          %a: f32[rows, 4] = mul(%grad, 0.5)
          %column: f32[rows, 1] = slice(%a, axis=1, start=2, stop=3)
          %flat: f32[rows] = reshape(%column)
          output z = %flat""",
        """\
        program p
          input %grad: f32[rows, 4]
          %flat.unscaled: f32[rows] = index(%grad, axis=1, place=2)
          %flat: f32[rows] = mul(%flat.unscaled, 0.5)
          output z = %flat""",
    ),
    "a compiler is given arithmetic for tanh": (
        for_compiler,
        (equation("tanh", A, GRAD), *PLACE),
        """\
        program p
          input %grad: f32[rows, 4]
          %a: f32[rows, 4] = tanh(%grad)
          %column: f32[rows, 1] = slice(%a, axis=1, start=2, stop=3)
          %flat: f32[rows] = reshape(%column)
          output z = %flat""",
        """\
        program p
          input %grad: f32[rows, 4]
          %a: f32[rows, 4] = rational_tanh(%grad)
          %flat: f32[rows] = index(%a, axis=1, place=2)
          output z = %flat""",
    ),
    "a contraction over stacked values is a sum of products": (
        unstack,
        (
            equation("reshape", UP, U),
            equation("reshape", DOWN, V),
            equation("concatenate", STACK, UP, DOWN, axis=0),
            equation("exp", GROWN, STACK),
            equation("einsum", MIXED, WEIGHT, GROWN, subscripts="ab,bc->ac"),
            equation("reduce", FLAT, MIXED, kind="max", axes=(0,)),
        ),
        """\
        program p
          input %grad.u: f32[rows]
          input %grad.v: f32[rows]
          weight %mix: f32[2, 2]
          %up: f32[1, rows] = reshape(%grad.u)
          %down: f32[1, rows] = reshape(%grad.v)
          %stack: f32[2, rows] = concatenate(%up, %down, axis=0)
          %grown: f32[2, rows] = exp(%stack)
          %mixed: f32[2, rows] = einsum(%mix, %grown, subscripts=ab,bc->ac)
          %flat: f32[rows] = reduce(%mixed, kind=max, axes=(0))
          output z = %flat""",
        """\
        program p
          input %grad.u: f32[rows]
          input %grad.v: f32[rows]
          %grown.0: f32[rows] = exp(%grad.u)
          %grown.1: f32[rows] = exp(%grad.v)
          %mixed.2: f32[rows] = mul(%grown.0, 1.0)
          %mixed.3: f32[rows] = mul(%grown.1, 2.0)
          %mixed.4: f32[rows] = add(%mixed.2, %mixed.3)
          %mixed.5: f32[rows] = mul(%grown.0, 3.0)
          %mixed.6: f32[rows] = mul(%grown.1, 4.0)
          %mixed.7: f32[rows] = add(%mixed.5, %mixed.6)
          %flat.8: f32[rows] = max(%mixed.4, %mixed.7)
          output z = %flat.8""",
    ),
    "what the chunks of a tensor have in common is a program before": (
        pair,
        (
            equation("exp", E, ROW),
            equation("add", A, GRAD, E),
            equation("add", B, A, ROW),
            equation("mul", C, B, ROW),
        ),
        """\
        program p
          input %grad: f32[rows, 4]
          input %context.row: f32[rows, 1]
          %e: f32[rows, 1] = exp(%context.row)
          %a: f32[rows, 4] = add(%grad, %e)
          %b: f32[rows, 4] = add(%a, %context.row)
          %c: f32[rows, 4] = mul(%b, %context.row)
          output z = %c""",
        """\
        program prepare_p
          input %context.row: f32[rows, 1]
          %e: f32[rows, 1] = exp(%context.row)
          %b.of_tensors: f32[rows, 1] = add(%e, %context.row)
          output p.b.of_tensors = %b.of_tensors
        program p
          input %grad: f32[rows, 4]
          input %context.row: f32[rows, 1]
          input %p.b.of_tensors: f32[rows, 1]
          %b: f32[rows, 4] = add(%grad, %p.b.of_tensors)
          %c: f32[rows, 4] = mul(%b, %context.row)
          output z = %c""",
    ),
    "what does not broadcast is repeated, once": (
        pair,
        (
            equation("exp", E, ROW),
            equation("concatenate", JOINED, GRAD, E, axis=1),
            equation("concatenate", value("longer", "rows", 6), JOINED, E, axis=1),
        ),
        """\
        program p
          input %grad: f32[rows, 4]
          input %context.row: f32[rows, 1]
          %e: f32[rows, 1] = exp(%context.row)
          %joined: f32[rows, 5] = concatenate(%grad, %e, axis=1)
          %longer: f32[rows, 6] = concatenate(%joined, %e, axis=1)
          output z = %longer""",
        """\
        program prepare_p
          input %context.row: f32[rows, 1]
          %e: f32[rows, 1] = exp(%context.row)
          output p.e = %e
        program p
          input %grad: f32[rows, 4]
          input %p.e: f32[rows, 1]
          %e.of_chunks: f32[rows, 1] = broadcast(%p.e)
          %joined: f32[rows, 5] = concatenate(%grad, %e.of_chunks, axis=1)
          %longer: f32[rows, 6] = concatenate(%joined, %e.of_chunks, axis=1)
          output z = %longer""",
    ),
}


def program_of(equations: tuple[Equation, ...]) -> Program:
    """The program whose output is that of the last equation."""
    read = {operand for each in equations for operand in each.inputs}
    inputs = tuple(operand for operand in (GRAD, PARAM, U, V, ROW) if operand in read)
    weights = tuple(operand for operand in (WEIGHT,) if operand in read)
    outputs = (("z", equations[-1].output),)
    return check(Program("p", inputs, weights, equations, outputs, {each.name: MIX for each in weights}), "test")


def text(*programs: Program) -> str:
    """Without source lines."""
    return "\n".join(line.split("#")[0].rstrip() for program in programs for line in str(program).splitlines())


@pytest.mark.parametrize("name", CASES)
def test_a_lowering_makes_this_of_that(name: str) -> None:
    lower, equations, before, after = CASES[name]
    program = program_of(equations)
    assert text(program) == textwrap.dedent(before)
    result = lower(program)
    results = result if isinstance(result, tuple) else (result,)
    assert text(*(check(each, name) for each in results)) == textwrap.dedent(after)


@pytest.mark.parametrize(
    ("equations", "expected"),
    [
        ((equation("mul", A, GRAD, ROW), equation("exp", B, A)), True),
        ((equation("einsum", FLAT, GRAD, PARAM, subscripts="ab,ab->a"),), False),
        ((equation("concatenate", JOINED, GRAD, ROW, axis=1),), False),
        ((equation("reduce", FLAT, GRAD, kind="sum", axes=(1,)), equation("exp", value("f", "rows"), FLAT)), True),
        (
            (
                equation("reduce", FLAT, GRAD, kind="sum", axes=(1,)),
                equation("reshape", COLUMN, FLAT),
                equation("mul", A, GRAD, COLUMN),
            ),
            False,
        ),
    ],
    ids=["arithmetic", "a contraction", "a concatenation", "a sum of each row", "a sum that coordinates use"],
)
def test_what_one_loop_computes(equations: tuple[Equation, ...], expected: bool) -> None:
    assert is_pointwise(program_of(equations)) == expected
