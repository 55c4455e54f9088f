"""A pass that breaks a program is named, with the equation and its line."""

import dataclasses
import re

import numpy as np
import pytest

from mnemo_compile.errors import MnemoError
from mnemo_compile.program import check, compile_cell, Equation, Literal, Operand, optimise, Program, Value
from tests.helpers import learned_cell


def value(name: str, *shape: int | str, dtype: str = "float32") -> Value:
    return Value(name, shape, dtype)


def equation(primitive: str, output: Value, *inputs: Operand, **params: object) -> Equation:
    return Equation(primitive, inputs, (output,), params, "cell.py:7")


X, Y, Z, N = (value(name, "rows", 4) for name in "xyzn")
THREE, W = value("v", "rows", 3), value("w", 4)
ARRAY = np.ones(4, np.float32)
GOOD = Program("p", (X, THREE), (W,), (equation("mul", Y, X, W), equation("exp", Z, Y)), (("out", Z),), {"w": ARRAY})


def with_equation(primitive: str, output: Value, *inputs: Operand, **params: object) -> Program:
    """The program with one more equation at its end."""
    return dataclasses.replace(GOOD, equations=(*GOOD.equations, equation(primitive, output, *inputs, **params)))


BROKEN: dict[str, tuple[Program, str]] = {
    "is not defined before": (dataclasses.replace(GOOD, equations=GOOD.equations[::-1]), "exp(%y)"),
    "is assigned twice": (with_equation("neg", Y, X), "neg(%x)"),
    "the result is f32[rows, 4]": (with_equation("add", value("n", "rows", 1), X, W), "add(%x, %w)"),
    "do not broadcast": (with_equation("add", N, X, THREE), "add(%x, %v)"),
    "the result is bool[rows, 4]": (with_equation("gt", N, X, W), "gt(%x, %w)"),
    "the inputs are float32 and int32": (with_equation("add", N, X, Literal(1, "int32")), "add(%x, 1)"),
    "1 inputs are needed": (with_equation("neg", N, X, X), "neg(%x, %x)"),
    "the parameters are kind, axes": (with_equation("reduce", N, X, axes=(1,)), "reduce(%x, axes=(1))"),
    "there is no such primitive": (with_equation("cumsum", N, X), "cumsum(%x)"),
    "has no places 2:5": (with_equation("slice", N, X, axis=1, start=2, stop=5), "slice(%x"),
    "has not as many places as": (with_equation("reshape", value("n", "rows", 5), X), "reshape(%x)"),
    "do not join along axis 1": (with_equation("concatenate", N, X, W, axis=1), "concatenate(%x, %w"),
    "the axis b is both 4 and 3": (
        with_equation("einsum", value("n", "rows"), X, THREE, subscripts="ab,ab->a"),
        "einsum(%x, %v",
    ),
    "the weight has no array of this type": (dataclasses.replace(GOOD, arrays={"w": ARRAY[:3]}), "%w: f32[4]"),
    "it is an input or a weight twice": (dataclasses.replace(GOOD, inputs=(X, X, THREE)), "%x"),
    "%q is not defined": (dataclasses.replace(GOOD, outputs=(("out", value("q")),)), "output out"),
}


@pytest.mark.parametrize("problem", BROKEN)
def test_a_broken_program_is_refused_by_pass_equation_and_line(problem: str) -> None:
    program, where = BROKEN[problem]
    with pytest.raises(MnemoError, match=re.escape(problem)) as caught:
        optimise(GOOD, [lambda _: program])
    message = str(caught.value)
    assert message.startswith("the pass <lambda> makes an invalid program of p: ") and where in message
    if "(" in where:
        assert "(cell.py:7)" in message


def test_a_good_program_is_the_result() -> None:
    assert check(GOOD, "test") is GOOD


def test_no_equation_of_a_cell_can_be_taken_out() -> None:
    for program in compile_cell(learned_cell(3)).programs.values():
        for i in range(len(program.equations)):
            fewer = dataclasses.replace(program, equations=program.equations[:i] + program.equations[i + 1 :])
            with pytest.raises(MnemoError, match="is not defined"):
                check(fewer, "test")


def test_a_call_is_checked_inside() -> None:
    body = Program("part", (X,), (), (equation("exp", value("n", "rows", 3), X),), (("0", value("n", "rows", 3)),))
    call = Equation("call", (Z,), (N,), {"name": "part", "body": body}, "cell.py:9")
    with pytest.raises(MnemoError, match=r"exp\(%x\) \(cell\.py:7\): the result is f32\[rows, 4\]"):
        check(dataclasses.replace(GOOD, equations=(*GOOD.equations, call)), "test")
