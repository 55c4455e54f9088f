"""Tracing: what a JAX function becomes, as text."""

import gc
import textwrap
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnemo_compile.cell import cell_config
from mnemo_compile.program import CLOSED_SET, compile_cell, cost, optimise, Program, rows_of, TILE, trace
from mnemo_compile.step import group_of, PHASES
from tests.cells import cell_of

Arrays = Mapping[str, Any]
WEIGHTS = {"a.matrix": np.ones((3, 4), np.float32), "rate": np.float32(0.5) * np.ones((), np.float32)}


def traced(function: Any, **inputs: jax.ShapeDtypeStruct) -> Program:
    return optimise(trace("example", function, WEIGHTS, inputs))


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
          %function: f32[rows] = reduce(%hidden_2, kind=sum, axes=(1))
          %function_2: f32[rows] = mul(%derived.kept, %function)
          output y = %function_2"""
    )
    assert all(equation.source.startswith("test_trace.py:") for equation in program.equations)


def test_what_depends_on_weights_alone_becomes_a_weight() -> None:
    def function(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        kept = jnp.exp(-jnp.exp(weights["rate"]))
        return {"y": kept * inputs["x"]}

    program = traced(function, x=rows_of(2))
    assert [equation.primitive for equation in program.equations] == ["mul"]
    assert program.arrays["derived.kept"] == np.float32(np.exp(-np.exp(0.5)))


def test_nested_calls_are_inlined() -> None:
    @jax.custom_jvp
    def double(x: Any) -> Any:
        return x + x

    double.defjvp(lambda primals, tangents: (double(*primals), tangents[0]))

    def function(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        return {"y": jax.checkpoint(jax.jit(lambda x: jnp.where(x > 0, double(x), 1.0)))(inputs["x"])}

    program = traced(function, x=rows_of(2))
    assert [equation.primitive for equation in program.equations] == ["gt", "add", "select"]


@pytest.mark.parametrize("one", [1, 1.0])
def test_numbers_of_python_have_the_dtype_that_jax_gives_them(one: float) -> None:
    def function(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        return {"y": inputs["x"] * jnp.where(inputs["x"] > 0, 2 * one, one)}

    program = traced(function, x=rows_of(2))
    assert {equation.output.dtype for equation in program.equations} <= {"bool", "int32", "float32"}


def test_a_column_of_rows_is_a_slice() -> None:
    def function(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        return {"first": inputs["x"][:, 0], "last": inputs["x"][:, -1:]}

    program = traced(function, x=rows_of(4))
    assert [(e.primitive, dict(e.params)) for e in program.equations] == [
        ("slice", {"axis": 1, "start": 0, "stop": 1}),
        ("reshape", {}),
        ("slice", {"axis": 1, "start": 3, "stop": 4}),
    ]


@pytest.mark.parametrize("is_frozen", [False, True], ids=["thawed", "frozen"])
def test_what_others_keep_from_the_garbage_collector_stays_kept(is_frozen: bool) -> None:
    during = []

    def is_heap_frozen() -> bool:
        # CPython 3.12 keeps some hundred objects from the collector when it starts.
        return gc.get_freeze_count() > 1000

    def function(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        during.append(is_heap_frozen())
        return {"y": -inputs["x"]}

    if is_frozen:
        gc.freeze()
    try:
        before = is_heap_frozen()
        traced(function, x=rows_of(4))
        assert during[0]
        assert before == is_heap_frozen() == is_frozen
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("kernel", ["positive", "hyperbolic", "relu"])
def test_every_phase_of_a_cell_is_said_in_the_closed_set(kernel: str) -> None:
    cell = cell_config({"kind": "mnemosyne", "kernel": kernel}).build()
    compiled = compile_cell(cell)
    assert tuple(compiled.programs) == tuple(PHASES)
    used = {equation.primitive for program in compiled.programs.values() for equation in program.equations}
    assert used <= CLOSED_SET
    named = {value.name for program in compiled.programs.values() for value in program.weights}
    assert named == compiled.weights.keys()


def test_phases_over_tiles_have_three_free_sizes() -> None:
    programs = compile_cell(cell_of("tiled")).programs
    for name, phase in PHASES.items():
        inputs = {value.name: value.shape for value in programs[name].inputs} if name in programs else {}
        for value, shape in inputs.items():
            is_of_places = phase.rows == "tiles" and group_of(value) in ("param", "grad", "memory", "direction")
            assert (shape == ("rows", *TILE)) == is_of_places, value
            assert shape[0] == "rows" and (is_of_places or not set(shape) & set(TILE))
    shapes = {name: operand.shape for name, operand in programs["update_tiles"].outputs}
    assert shapes == dict.fromkeys(("param", "memory.fast", "memory.slow"), ("rows", *TILE))
    assert [operand.shape for _, operand in programs["orthogonalise"].outputs] == [("rows", *TILE)]


def test_what_a_polar_factor_costs_grows_with_the_tile() -> None:
    program = compile_cell(cell_of("tiled")).programs["orthogonalise"]
    one, other = (cost(program, {"height": side, "width": 2 * side}) for side in (16, 32))
    assert one.equations == other.equations == len(program.equations)
    # In each of five steps X Xᵀ, its square and a product with X: 2, 1 and 2 cubed heights of products and sums.
    assert one.operations > 50 * 16**3 and 7.5 < other.operations / one.operations < 8


def test_compiling_twice_gives_the_same_programs() -> None:
    cell = cell_config({"kind": "mnemosyne"}).build()
    first, second = compile_cell(cell), compile_cell(cell)
    assert {name: str(program) for name, program in first.programs.items()} == {
        name: str(program) for name, program in second.programs.items()
    }
    assert all(first.weights[name].tobytes() == second.weights[name].tobytes() for name in first.weights)
