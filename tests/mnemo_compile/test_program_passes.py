"""Passes: before and after, as text."""

import textwrap

import pytest

from mnemo_compile.program import (
    cse,
    dce,
    Equation,
    forget_identities,
    Literal,
    literals_last,
    Operand,
    Pass,
    Program,
    spread_implicitly,
    transpose_in_einsum,
    Value,
)

X, Y = Value("x", ("rows", 4), "float32"), Value("y", ("rows", 4), "float32")
ROW, MATRIX = Value("row", ("rows", 1), "float32"), Value("matrix", (3, 4), "float32")
ONE = Literal(1.0, "float32")


def value(name: str, *shape: int | str) -> Value:
    return Value(name, shape, "float32")


def equation(primitive: str, output: Value, *inputs: Operand, **params: object) -> Equation:
    return Equation(primitive, inputs, (output,), params, "cell.py:1")


A, B, C, WIDE = (value(name, "rows", 4) for name in ("a", "b", "c", "wide"))
TURNED, OUT = value("turned", 4, "rows"), value("out", "rows", 3)

CASES: dict[str, tuple[Pass, tuple[Equation, ...], Value, str]] = {
    "what is not needed is removed": (
        dce,
        (equation("exp", A, X), equation("add", B, X, Y), equation("neg", C, A)),
        C,
        """\
        program p
          input %x: f32[rows, 4]
          %a: f32[rows, 4] = exp(%x)
          %c: f32[rows, 4] = neg(%a)
          output z = %c""",
    ),
    "what is computed twice is computed once": (
        cse,
        (equation("add", A, X, Y), equation("add", B, Y, X), equation("mul", C, A, B)),
        C,
        """\
        program p
          input %x: f32[rows, 4]
          input %y: f32[rows, 4]
          input %row: f32[rows, 1]
          weight %matrix: f32[3, 4]
          %a: f32[rows, 4] = add(%x, %y)
          %c: f32[rows, 4] = mul(%a, %a)
          output z = %c""",
    ),
    "numbers stand last": (
        literals_last,
        (equation("mul", A, ONE, X), equation("sub", B, ONE, A)),
        B,
        """\
        program p
          input %x: f32[rows, 4]
          input %y: f32[rows, 4]
          input %row: f32[rows, 1]
          weight %matrix: f32[3, 4]
          %a: f32[rows, 4] = mul(%x, 1.0)
          %b: f32[rows, 4] = sub(1.0, %a)
          output z = %b""",
    ),
    "elementwise equations spread by themselves": (
        spread_implicitly,
        (equation("broadcast", WIDE, ROW), equation("mul", A, X, WIDE), equation("mul", B, WIDE, WIDE)),
        B,
        """\
        program p
          input %x: f32[rows, 4]
          input %y: f32[rows, 4]
          input %row: f32[rows, 1]
          weight %matrix: f32[3, 4]
          %wide: f32[rows, 4] = broadcast(%row)
          %a: f32[rows, 4] = mul(%x, %row)
          %b: f32[rows, 4] = mul(%row, %wide)
          output z = %b""",
    ),
    "what changes nothing is removed": (
        forget_identities,
        (
            equation("reshape", TURNED, X),
            equation("reshape", A, TURNED),
            equation("convert", B, A, dtype="float32"),
            equation("transpose", C, B, permutation=(0, 1)),
        ),
        C,
        """\
        program p
          input %x: f32[rows, 4]
          input %y: f32[rows, 4]
          input %row: f32[rows, 1]
          weight %matrix: f32[3, 4]
          %turned: f32[4, rows] = reshape(%x)
          output z = %x""",
    ),
    "an einsum takes the transposes around it": (
        transpose_in_einsum,
        (
            equation("transpose", TURNED, X, permutation=(1, 0)),
            equation("einsum", value("made", 3, "rows"), MATRIX, TURNED, subscripts="ab,bc->ac"),
            equation("transpose", OUT, value("made", 3, "rows"), permutation=(1, 0)),
        ),
        OUT,
        """\
        program p
          input %x: f32[rows, 4]
          input %y: f32[rows, 4]
          input %row: f32[rows, 1]
          weight %matrix: f32[3, 4]
          %turned: f32[4, rows] = transpose(%x, permutation=(1, 0))
          %made: f32[3, rows] = einsum(%matrix, %x, subscripts=ab,cb->ac)
          %out: f32[rows, 3] = einsum(%matrix, %x, subscripts=ab,cb->ca)
          output z = %out""",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_pass_gives_this_text(name: str) -> None:
    apply, equations, output, expected = CASES[name]
    program = apply(Program("p", (X, Y, ROW), (MATRIX,), equations, (("z", output),)))
    lines = [line.split("#")[0].rstrip() for line in str(program).splitlines()]
    assert "\n".join(lines) == textwrap.dedent(expected)
