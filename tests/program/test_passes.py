"""Passes: what they make of a program, before and after side by side."""

import textwrap

import numpy as np
import pytest

from mnemo_compile.program import (
    broadcast_implicitly,
    canonicalise,
    check,
    cse,
    dce,
    drop_identities,
    Equation,
    fold,
    inline,
    Literal,
    literals_last,
    Operand,
    Pass,
    Program,
    renumber,
    transpose_in_einsum,
    Value,
)

X, Y = Value("x", ("rows", 4), "float32"), Value("y", ("rows", 4), "float32")
ROW, MATRIX = Value("row", ("rows", 1), "float32"), Value("matrix", (3, 4), "float32")
ONE = Literal(1.0, "float32")
PLACE = Value("place", (1,), "int32")


def value(name: str, *shape: int | str, dtype: str = "float32") -> Value:
    return Value(name, shape, dtype)


def equation(primitive: str, output: Value, *inputs: Operand, **params: object) -> Equation:
    return Equation(primitive, inputs, (output,), params, "cell.py:1")


A, B, C, WIDE = (value(name, "rows", 4) for name in ("a", "b", "c", "wide"))
TURNED, OUT = value("turned", 4, "rows"), value("out", "rows", 3)
FLAG = value("flag", "rows", 4, dtype="bool")

DOUBLE = Program(
    "double",
    (value("u", "rows", 4),),
    (value("constant", 4),),
    (
        equation("add", value("twice", "rows", 4), value("u", "rows", 4), value("u", "rows", 4)),
        equation("mul", value("scaled", "rows", 4), value("twice", "rows", 4), value("constant", 4)),
    ),
    (("0", value("scaled", "rows", 4)),),
    {"constant": np.arange(4, dtype=np.float32)},
)

CASES: dict[str, tuple[Pass, tuple[Equation, ...], Operand, str, str]] = {
    "a call is replaced by what it calls": (
        inline,
        (
            equation("call", A, X, name="double", body=DOUBLE),
            equation("call", B, A, name="double", body=DOUBLE),
        ),
        B,
        """\
        %a: f32[rows, 4] = call(%x, name=double)
          input %u: f32[rows, 4]
          weight %constant: f32[4]
          %twice: f32[rows, 4] = add(%u, %u)
          %scaled: f32[rows, 4] = mul(%twice, %constant)
          output 0 = %scaled
        %b: f32[rows, 4] = call(%a, name=double)
          input %u: f32[rows, 4]
          weight %constant: f32[4]
          %twice: f32[rows, 4] = add(%u, %u)
          %scaled: f32[rows, 4] = mul(%twice, %constant)
          output 0 = %scaled
        output z = %b""",
        """\
        weight %constant: f32[4]
        %twice: f32[rows, 4] = add(%x, %x)
        %scaled: f32[rows, 4] = mul(%twice, %constant)
        %twice_2: f32[rows, 4] = add(%scaled, %scaled)
        %scaled_2: f32[rows, 4] = mul(%twice_2, %constant)
        output z = %scaled_2""",
    ),
    "a contraction is an einsum": (
        canonicalise,
        (equation("lax.dot_general", OUT, X, MATRIX, contract=((1,), (1,)), batch=((), ())),),
        OUT,
        """\
        %out: f32[rows, 3] = lax.dot_general(%x, %matrix, contract=((1), (1)), batch=((), ()))
        output z = %out""",
        """\
        %out: f32[rows, 3] = einsum(%x, %matrix, subscripts=ab,cb->ac)
        output z = %out""",
    ),
    "a reduction is a reduce": (
        canonicalise,
        (equation("lax.reduce_max", value("top", "rows"), X, axes=(1,)),),
        value("top", "rows"),
        """\
        %top: f32[rows] = lax.reduce_max(%x, axes=(1))
        output z = %top""",
        """\
        %top: f32[rows] = reduce(%x, kind=max, axes=(1))
        output z = %top""",
    ),
    "a gather at a known place is a slice": (
        canonicalise,
        (
            equation(
                "lax.gather",
                value("column", "rows"),
                X,
                PLACE,
                batching=(),
                collapsed=(1,),
                index_map=(1,),
                sizes=("rows", 1),
            ),
        ),
        value("column", "rows"),
        """\
        %column: f32[rows] = lax.gather(%x, %place, batching=(), collapsed=(1), index_map=(1), sizes=(rows, 1))
        output z = %column""",
        """\
        %column_2: f32[rows, 1] = slice(%x, axis=1, start=2, stop=3)
        %column_3: f32[rows] = reshape(%column_2)
        output z = %column_3""",
    ),
    "powers are products, comparisons look one way, a choice names what is true first": (
        canonicalise,
        (
            equation("lax.integer_pow", A, X, power=3),
            equation("lax.lt", FLAG, A, Y),
            equation("lax.select_n", B, FLAG, X, Y),
            equation("lax.logistic", C, B),
        ),
        C,
        """\
        %a: f32[rows, 4] = lax.integer_pow(%x, power=3)
        %flag: bool[rows, 4] = lax.lt(%a, %y)
        %b: f32[rows, 4] = lax.select_n(%flag, %x, %y)
        %c: f32[rows, 4] = lax.logistic(%b)
        output z = %c""",
        """\
        %a_2: f32[rows, 4] = mul(%x, %x)
        %a_3: f32[rows, 4] = mul(%x, %a_2)
        %flag: bool[rows, 4] = gt(%y, %a_3)
        %b: f32[rows, 4] = select(%flag, %y, %x)
        %c_2: f32[rows, 4] = neg(%b)
        %c_3: f32[rows, 4] = exp(%c_2)
        %c_4: f32[rows, 4] = add(%c_3, 1.0)
        %c: f32[rows, 4] = div(1.0, %c_4)
        output z = %c""",
    ),
    "what is not in the closed set stays": (
        canonicalise,
        (equation("lax.cumsum", A, X),),
        A,
        """\
        %a: f32[rows, 4] = lax.cumsum(%x)
        output z = %a""",
        """\
        %a: f32[rows, 4] = lax.cumsum(%x)
        output z = %a""",
    ),
    "what depends on weights alone is computed": (
        fold,
        (
            equation("exp", value("grown", 3, 4), MATRIX),
            equation("mul", value("grown_2", 3, 4), value("grown", 3, 4), value("grown", 3, 4)),
            equation("einsum", OUT, X, value("grown_2", 3, 4), subscripts="ab,cb->ac"),
        ),
        OUT,
        """\
        %grown: f32[3, 4] = exp(%matrix)
        %grown_2: f32[3, 4] = mul(%grown, %grown)
        %out: f32[rows, 3] = einsum(%x, %grown_2, subscripts=ab,cb->ac)
        output z = %out""",
        """\
        weight %derived.grown: f32[3, 4]
        %out: f32[rows, 3] = einsum(%x, %derived.grown, subscripts=ab,cb->ac)
        output z = %out""",
    ),
    "what is not needed is removed": (
        dce,
        (equation("exp", A, X), equation("add", B, X, Y), equation("neg", C, A)),
        C,
        """\
        %a: f32[rows, 4] = exp(%x)
        %b: f32[rows, 4] = add(%x, %y)
        %c: f32[rows, 4] = neg(%a)
        output z = %c""",
        """\
        %a: f32[rows, 4] = exp(%x)
        %c: f32[rows, 4] = neg(%a)
        output z = %c""",
    ),
    "what is computed twice is computed once": (
        cse,
        (equation("add", A, X, Y), equation("add", B, Y, X), equation("mul", C, A, B)),
        C,
        """\
        %a: f32[rows, 4] = add(%x, %y)
        %b: f32[rows, 4] = add(%y, %x)
        %c: f32[rows, 4] = mul(%a, %b)
        output z = %c""",
        """\
        %a: f32[rows, 4] = add(%x, %y)
        %c: f32[rows, 4] = mul(%a, %a)
        output z = %c""",
    ),
    "numbers stand last": (
        literals_last,
        (equation("mul", A, ONE, X), equation("sub", B, ONE, A)),
        B,
        """\
        %a: f32[rows, 4] = mul(1.0, %x)
        %b: f32[rows, 4] = sub(1.0, %a)
        output z = %b""",
        """\
        %a: f32[rows, 4] = mul(%x, 1.0)
        %b: f32[rows, 4] = sub(1.0, %a)
        output z = %b""",
    ),
    "elementwise equations spread by themselves": (
        broadcast_implicitly,
        (equation("broadcast", WIDE, ROW), equation("mul", A, X, WIDE), equation("mul", B, WIDE, WIDE)),
        B,
        """\
        %wide: f32[rows, 4] = broadcast(%row)
        %a: f32[rows, 4] = mul(%x, %wide)
        %b: f32[rows, 4] = mul(%wide, %wide)
        output z = %b""",
        """\
        %wide: f32[rows, 4] = broadcast(%row)
        %a: f32[rows, 4] = mul(%x, %row)
        %b: f32[rows, 4] = mul(%row, %wide)
        output z = %b""",
    ),
    "what changes nothing is removed": (
        drop_identities,
        (
            equation("reshape", TURNED, X),
            equation("reshape", A, TURNED),
            equation("convert", B, A, dtype="float32"),
            equation("transpose", C, B, permutation=(0, 1)),
        ),
        C,
        """\
        %turned: f32[4, rows] = reshape(%x)
        %a: f32[rows, 4] = reshape(%turned)
        %b: f32[rows, 4] = convert(%a, dtype=float32)
        %c: f32[rows, 4] = transpose(%b, permutation=(0, 1))
        output z = %c""",
        """\
        %turned: f32[4, rows] = reshape(%x)
        output z = %x""",
    ),
    "values of one name are numbered in order": (
        renumber,
        (
            equation("exp", value("hidden_7_2", "rows", 4), X),
            equation("neg", value("hidden", "rows", 4), value("hidden_7_2", "rows", 4)),
        ),
        value("hidden", "rows", 4),
        """\
        %hidden_7_2: f32[rows, 4] = exp(%x)
        %hidden: f32[rows, 4] = neg(%hidden_7_2)
        output z = %hidden""",
        """\
        %hidden: f32[rows, 4] = exp(%x)
        %hidden_2: f32[rows, 4] = neg(%hidden)
        output z = %hidden_2""",
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
        %turned: f32[4, rows] = transpose(%x, permutation=(1, 0))
        %made: f32[3, rows] = einsum(%matrix, %turned, subscripts=ab,bc->ac)
        %out: f32[rows, 3] = transpose(%made, permutation=(1, 0))
        output z = %out""",
        """\
        %turned: f32[4, rows] = transpose(%x, permutation=(1, 0))
        %made: f32[3, rows] = einsum(%matrix, %x, subscripts=ab,cb->ac)
        %out: f32[rows, 3] = einsum(%matrix, %x, subscripts=ab,cb->ca)
        output z = %out""",
    ),
}
GIVEN = {"x", "y", "row", "matrix", "place"}


def text(program: Program) -> str:
    """Without source lines, and without the inputs and weights that every case has."""
    lines = [line.split("#")[0].rstrip().removeprefix("  ") for line in str(program).splitlines()[1:]]
    given = tuple(f"{kind} %{name}:" for kind in ("input", "weight") for name in GIVEN)
    return "\n".join(line for line in lines if not line.startswith(given))


@pytest.mark.parametrize("name", CASES)
def test_a_pass_makes_this_of_that(name: str) -> None:
    apply, equations, output, before, after = CASES[name]
    arrays = {"matrix": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), "place": np.array([2], np.int32)}
    program = Program("p", (X, Y, ROW), (MATRIX, PLACE), equations, (("z", output),), arrays)
    assert text(check(program, "test")) == textwrap.dedent(before)
    assert text(check(apply(program), name)) == textwrap.dedent(after)


def test_what_is_folded_is_rounded_once() -> None:
    arrays = {"matrix": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)}
    program = Program("p", (X,), (MATRIX,), (equation("exp", value("grown", 3, 4), MATRIX),), (("z", MATRIX),), arrays)
    folded = fold(dce_keeps(program, "grown"))
    expected = np.exp(arrays["matrix"].astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(folded.arrays["derived.grown"], expected)


def dce_keeps(program: Program, name: str) -> Program:
    """The program with the value of this name as its only output."""
    made = next(e.output for e in program.equations if e.output.name == name)
    return Program(program.name, program.inputs, program.weights, program.equations, (("z", made),), program.arrays)
