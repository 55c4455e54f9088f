"""Tracing: what a JAX function becomes, as text."""

import textwrap
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.cell import build_cell, cell_config
from mnemo_compile.errors import MnemoError
from mnemo_compile.exporters import onnx, optax, torch
from mnemo_compile.exporters._source import render
from mnemo_compile.program import compile_cell, optimise, PHASES, Program, rows_of, trace

Arrays = Mapping[str, Any]
WEIGHTS = {"a.matrix": np.ones((3, 4), np.float32), "rate": np.float32(0.5) * np.ones((), np.float32)}


def traced(function: Any, **inputs: jax.ShapeDtypeStruct) -> Program:
    return optimise(trace("example", function, WEIGHTS, inputs)[0])


def text(program: Program) -> str:
    """Without source lines."""
    return "\n".join(line.split("#")[0].rstrip() for line in str(program).splitlines())


def test_a_program_names_its_inputs_weights_values_and_outputs() -> None:
    def function(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        hidden = jax.nn.relu(jnp.einsum("ij,rj->ri", weights["a.matrix"], inputs["x"]))
        kept = jnp.exp(-jnp.exp(weights["rate"]))
        return {"y": kept * jnp.sum(hidden, axis=1)}

    program = traced(function, x=rows_of(4))
    assert text(program) == textwrap.dedent(
        """\
        program example
          input %x: f32[rows, 4]
          weight %a.matrix: f32[3, 4]
          weight %derived.kept: f32[]
          %hidden: f32[rows, 3] = einsum(%x, %a.matrix, subscripts=ab,cb->ac)
          %hidden_2: f32[rows, 3] = max(%hidden, 0.0)
          %function: f32[rows] = sum(%hidden_2, axes=(1))
          %function_2: f32[rows] = mul(%derived.kept, %function)
          output y = %function_2"""
    )
    assert all(equation.source.startswith("test_program_trace.py:") for equation in program.equations)


def test_what_depends_on_weights_alone_becomes_a_weight() -> None:
    def function(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        kept = jnp.exp(-jnp.exp(weights["rate"]))
        return {"y": kept * inputs["x"]}

    program, arrays = trace("example", function, WEIGHTS, {"x": rows_of(2)})
    assert [equation.primitive for equation in program.equations] == ["mul"]
    np.testing.assert_allclose(arrays["derived.kept"], np.exp(-np.exp(0.5)), rtol=1e-6)


def test_nested_calls_are_inlined() -> None:
    @jax.custom_jvp
    def double(x: Any) -> Any:
        return x + x

    double.defjvp(lambda primals, tangents: (double(*primals), tangents[0]))

    def function(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        return {"y": jax.checkpoint(jax.jit(lambda x: jnp.where(x > 0, double(x), 1.0)))(inputs["x"])}

    program = traced(function, x=rows_of(2))
    assert [equation.primitive for equation in program.equations] == ["gt", "add", "select"]


def test_a_column_of_rows_is_a_slice() -> None:
    def function(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        return {"first": inputs["x"][:, 0], "last": inputs["x"][:, -1:]}

    program = traced(function, x=rows_of(4))
    assert [(e.primitive, dict(e.params)) for e in program.equations] == [
        ("slice", {"axis": 1, "start": 0, "stop": 1}),
        ("reshape", {}),
        ("slice", {"axis": 1, "start": 3, "stop": 4}),
    ]


@pytest.mark.parametrize("target", ["torch", "optax", "onnx"])
def test_a_primitive_that_is_not_known_is_refused_by_name_line_and_target(target: str) -> None:
    def function(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        return {"y": jnp.cumsum(inputs["x"], axis=1)}

    program = traced(function, x=rows_of(4))
    expected = rf"cumsum \(test_program_trace\.py:\d+\) cannot be said in {target}; say it with: abs, add, .*transpose"
    with pytest.raises(MnemoError, match=expected):
        if target == "onnx":
            import onnx_ir

            x = onnx_ir.val("x", onnx_ir.DataType.FLOAT, ["rows", 4])
            onnx._Builder({}).call(program, {"x": x})
        else:
            render(program, {"torch": torch, "optax": optax}[target]._TABLE, target, "Tensor")


@pytest.mark.parametrize("kernel", ["positive", "hyperbolic", "relu"])
def test_every_phase_of_a_cell_is_said_in_the_closed_set(kernel: str) -> None:
    cell = build_cell(cell_config({"kind": "mnemosyne", "kernel": kernel}))
    compiled = compile_cell(cell)
    assert tuple(compiled.programs) == PHASES
    used = {equation.primitive for program in compiled.programs.values() for equation in program.equations}
    for table in (torch._TABLE, optax._TABLE, onnx._TABLE):
        assert used <= table.keys()
    named = {value.name for program in compiled.programs.values() for value in program.weights}
    assert named == compiled.weights.keys()


def test_compiling_twice_gives_the_same_programs() -> None:
    cell = build_cell(cell_config({"kind": "mnemosyne"}))
    first, second = compile_cell(cell), compile_cell(cell)
    assert {name: str(program) for name, program in first.programs.items()} == {
        name: str(program) for name, program in second.programs.items()
    }
    assert all(first.weights[name].tobytes() == second.weights[name].tobytes() for name in first.weights)
