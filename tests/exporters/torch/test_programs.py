"""What the torch exporter makes of programs means what the programs mean."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from mnemo_compile.exporters.torch._fuse import for_compiler, fuse
from mnemo_compile.exporters.torch._per_tensor import separate
from mnemo_compile.exporters.python._source import render
from mnemo_compile.exporters.python._unroll import is_pointwise, unroll
from mnemo_compile.exporters.torch.runtime import _functions
from mnemo_compile.exporters.torch._primitives import TABLE
from mnemo_compile.program import CLOSED_SET, compile_cell, Equation, evaluate, Literal, Operand, Program, Value
from tests.helpers import learned_cell

ROWS = ("rows", 4)
X, Y, Z = (Value(name, ROWS, "float32") for name in ("param", "grad", "memory.z"))
T = Value("context.t", ("rows", 1), "float32")


def program(*equations: Equation, inputs: tuple[Value, ...] = (X, Y, Z), weights: tuple[Value, ...] = ()) -> Program:
    outputs = (("out", equations[-1].output),)
    return Program("phase", inputs, weights, equations, outputs)


def equation(primitive: str, *inputs: Operand, shape: Any = ROWS, dtype: str = "float32", **params: Any) -> Equation:
    name = f"{primitive}.{'.'.join(str(operand) for operand in inputs)}".replace("%", "")
    return Equation(primitive, inputs, (Value(name, shape, dtype),), params, "cell.py:1")


def run(made: Program, arrays: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray] | None = None) -> Any:
    """The outputs of the generated code."""
    space: dict[str, Any] = {}
    source = "from collections.abc import Mapping\nimport torch\nfrom torch import Tensor\n"
    exec(source + render(made, TABLE, "torch", "Tensor"), {"rational_tanh": _functions.rational_tanh}, space)
    function = space[made.name]
    exec_globals = function.__globals__
    exec_globals.update(space)
    tensors = {name: torch.tensor(value) for name, value in arrays.items()}
    weights_ = {name: torch.tensor(value) for name, value in (weights or {}).items()}
    return {name: value.numpy() for name, value in function(weights_, tensors).items()}


def arrays_of(values: tuple[Value, ...], rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    made = {}
    for value in values:
        shape = tuple(rows if isinstance(size, str) else size for size in value.shape)
        made[value.name] = (
            random.random(shape) < 0.5
            if value.dtype == "bool"
            else np.asarray(0.1 + np.abs(random.normal(size=shape)), value.dtype)
        )
    return made


BOOL = Value("valid", ROWS, "bool")
PRIMITIVES = [
    *(equation(name, X) for name in ("neg", "abs", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "tanh", "sin")),
    *(equation(name, X) for name in ("cos", "erf", "floor", "sign")),
    *(equation(name, X, Y) for name in ("add", "sub", "mul", "div", "max", "min", "pow")),
    *(equation(name, X, Literal(2.0, "float32")) for name in ("add", "sub", "mul", "div", "max", "min", "pow")),
    *(equation(name, Literal(2.0, "float32"), X) for name in ("sub", "div", "max", "min", "pow")),
    *(equation(name, X, Y, dtype="bool") for name in ("gt", "ge", "eq")),
    *(equation(name, Literal(0.5, "float32"), Y, dtype="bool") for name in ("gt", "ge", "eq")),
    equation("is_finite", X, dtype="bool"),
    equation("not", BOOL, dtype="bool"),
    *(equation(name, BOOL, BOOL, dtype="bool") for name in ("and", "or")),
    equation("select", BOOL, X, Y),
    equation("select", BOOL, Literal(1.5, "float32"), Y),
    equation("select", BOOL, Literal(1.5, "float32"), Literal(0.25, "float32")),
    equation("select", BOOL, Literal(1, "int32"), Literal(0, "int32"), dtype="int32"),
    equation("convert", BOOL, dtype="float32"),
    equation("convert", X, dtype="int32"),
    *(equation("reduce", X, shape=("rows",), kind=kind, axes=(1,)) for kind in ("sum", "max", "min")),
    equation("reshape", X, shape=("rows", 2, 2)),
    equation("broadcast", Literal(3, "int32"), dtype="int32"),
    equation("broadcast", Value("context.t", ("rows", 1), "float32")),
    equation("transpose", X, shape=(4, "rows"), permutation=(1, 0)),
    equation("concatenate", X, Y, shape=("rows", 8), axis=1),
    equation("slice", X, shape=("rows", 2), axis=1, start=1, stop=3),
    equation("einsum", X, Y, shape=("rows",), subscripts="ab,ab->a"),
]  # fmt: skip


@pytest.mark.parametrize("made", PRIMITIVES, ids=str)
@pytest.mark.parametrize("rows", [1, 5])
def test_each_primitive_means_what_the_closed_set_says(made: Equation, rows: int) -> None:
    inputs = (X, Y, BOOL, T)
    whole = program(made, inputs=inputs)
    arrays = arrays_of(inputs, rows)
    expected, given_ = evaluate(whole, arrays)["out"], run(whole, arrays)["out"]
    assert given_.dtype == expected.dtype and given_.shape == expected.shape
    np.testing.assert_allclose(given_, expected, rtol=1e-6)


def test_the_table_has_every_primitive() -> None:
    assert set(CLOSED_SET) <= set(TABLE)


BINARY, UNARY = ("add", "sub", "mul", "div", "max", "min"), ("neg", "abs", "exp", "tanh", "rsqrt")


@st.composite
def chains(draw: st.DrawFn) -> Program:
    """Random arithmetic over chunks, tensors and numbers."""
    known: list[Operand] = [X, Y, Z, T, Literal(0.5, "float32"), Literal(1.0, "float32")]
    equations: list[Equation] = []
    for count in range(draw(st.integers(2, 12))):
        primitive = draw(st.sampled_from((*BINARY, *BINARY, *UNARY)))
        first = draw(st.sampled_from([operand for operand in known if isinstance(operand, Value)]))
        inputs = (first, draw(st.sampled_from(known))) if primitive in BINARY else (first,)
        if primitive in ("rsqrt", "div"):
            positive = Value(f"positive{count}", inputs[-1].shape, "float32")
            if isinstance(inputs[-1], Literal):
                positive = inputs[-1]
            else:
                size = Value(f"size{count}", inputs[-1].shape, "float32")
                equations.append(Equation("abs", inputs[-1:], (size,), {}, "cell.py:2"))
                equations.append(Equation("add", (size, Literal(1.0, "float32")), (positive,), {}, "cell.py:2"))
            inputs = (*inputs[:-1], positive)
        if primitive == "exp":
            bounded = Value(f"bounded{count}", first.shape, "float32")
            equations.append(Equation("tanh", (first,), (bounded,), {}, "cell.py:3"))
            inputs = (bounded,)
        shape = ROWS if any(operand.shape == ROWS for operand in inputs) else ("rows", 1)
        output = Value(f"value{count}", shape, "float32")
        equations.append(Equation(primitive, inputs, (output,), {}, "cell.py:4"))
        known.append(output)
    final = equation("add", equations[-1].output, X)
    return program(*equations, final, inputs=(X, Y, Z, T))


@settings(max_examples=25, deadline=None)
@given(chains())
def test_separating_and_fusing_change_nothing_but_rounding(whole: Program) -> None:
    arrays = arrays_of(whole.inputs, 3)
    # All chunks are of one tensor.
    arrays["context.t"] = np.repeat(arrays["context.t"][:1], 3, axis=0)
    arrays = {name: value.astype(np.float64) for name, value in arrays.items()}
    expected = evaluate(whole, arrays, np.float64)["out"]
    every = dataclasses.replace(whole, outputs=tuple((e.output.name, e.output) for e in whole.equations))
    largest = max(np.abs(value).max() for value in evaluate(every, arrays, np.float64).values())
    assume(largest < 1e6)
    first, rest = separate(whole, 4)
    for rows in (3, 1):
        known = {**arrays, "context.t": arrays["context.t"][:rows]}
        if first is not None:
            known.update(run(fuse(first), {value.name: known[value.name] for value in first.inputs}))
        given_ = run(fuse(rest), {value.name: known[value.name] for value in rest.inputs})["out"]
        np.testing.assert_allclose(given_, expected, rtol=1e-9, atol=1e-9 * (1 + largest))


@pytest.mark.parametrize("name", ["measure", "encode", "probe", "update"])
def test_unrolling_a_cell_changes_nothing_but_rounding(name: str) -> None:
    compiled = compile_cell(learned_cell(3))
    _, rest = separate(compiled.programs[name], compiled.chunk_length)
    unrolled = unroll(rest, compiled.weights)
    assert unrolled.inputs == rest.inputs
    arrays = arrays_of(rest.inputs, 5)
    expected = evaluate(rest, arrays, np.float64)
    for key, value in evaluate(unrolled, arrays, np.float64).items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-12)
    weights = {value.name: compiled.weights[value.name] for value in unrolled.weights}
    for key, value in run(for_compiler(unrolled), arrays, weights).items():
        assert np.linalg.norm(value - expected[key]) <= 2e-5 * np.linalg.norm(expected[key])


def test_an_update_becomes_one_loop() -> None:
    compiled = compile_cell(learned_cell(3))
    _, rest = separate(compiled.programs["update"], compiled.chunk_length)
    assert not is_pointwise(rest)
    assert is_pointwise(unroll(rest, compiled.weights))


def test_what_a_phase_computes_of_its_tensor_is_computed_before_it() -> None:
    compiled = compile_cell(learned_cell(3))
    first, rest = separate(compiled.programs["update"], compiled.chunk_length)
    assert first is not None and first.name == "prepare_update"
    assert all(value.shape[0] == "rows" for value in rest.inputs)
    wide = [e for e in rest.equations if e.primitive not in ("transpose", "broadcast", "reshape")]
    assert all(e.output.shape[-1] == compiled.chunk_length for e in wide)


def test_sums_of_products_are_single_operations() -> None:
    product = equation("mul", X, Y)
    scaled = equation("mul", Z, Literal(0.5, "float32"))
    text = render(fuse(program(product, equation("add", Z, product.output))), TABLE, "torch", "Tensor")
    assert '"out": torch.addcmul(memory_z, param, grad),' in text
    text = render(fuse(program(scaled, equation("sub", X, scaled.output))), TABLE, "torch", "Tensor")
    assert '"out": torch.add(param, memory_z, alpha=-0.5),' in text


@pytest.mark.parametrize("x", [0.0, 1e-8, 1e-3, 0.1, 1.0, 7.0, 30.0, float("inf")])
def test_the_rational_tanh_is_tanh(x: float) -> None:
    for sign in (1, -1):
        given_ = _functions.rational_tanh(torch.tensor(sign * x))
        torch.testing.assert_close(given_, torch.tensor(sign * x).tanh(), rtol=5e-7, atol=0.0)
    assert _functions.rational_tanh(torch.tensor(float("nan"))).isnan()
