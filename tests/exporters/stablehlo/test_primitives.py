"""Every primitive as a function of JAX, run or written as text, computes what it means, also at the edges."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mnemo_compile.exporters.optax._primitives import TABLE as OPTAX_TABLE
from mnemo_compile.exporters.optax.runtime._products import einsum
from mnemo_compile.exporters.python._source import render
from mnemo_compile.exporters.stablehlo import _functions as functions
from mnemo_compile.exporters.stablehlo._primitives import TABLE as STABLEHLO_TABLE
from mnemo_compile.program import CLOSED_SET, compile_cell, CompiledCell, Equation, evaluate, Literal, Program, Value
from tests.cells import cell_of
from tests.exporters.primitives import CASES, program, RANDOM

TARGETS = ["optax", "stablehlo"]


@pytest.fixture(scope="module")
def bare() -> CompiledCell:
    return compile_cell(cell_of("bare"))


def run(target: str, phase: Program, inputs: dict[str, np.ndarray], bare: CompiledCell) -> np.ndarray:
    given = {name: jnp.asarray(value) for name, value in inputs.items()}
    if target == "stablehlo":
        compiled = dataclasses.replace(bare, programs={**bare.programs, "phase": phase})
        return np.asarray(jax.jit(functions.phase_function(compiled, "phase")[0])(given)["out"])
    scope: dict[str, Any] = {"jnp": jnp, "lax": lax, "einsum": einsum, "Mapping": dict, "Array": jax.Array}
    exec(render(phase, OPTAX_TABLE, "optax", "Array"), scope)
    return np.asarray(jax.jit(scope["phase"])({}, given)["out"])


def assert_means(
    target: str, phase: Program, inputs: dict[str, np.ndarray], bare: CompiledCell, smallest: float = 2e-38
) -> None:
    given = run(target, phase, inputs, bare)
    truth = evaluate(phase, inputs, np.float64)["out"]
    with np.errstate(all="ignore"):
        expected = truth.astype(given.dtype)
    assert given.dtype == phase.outputs[0][1].dtype and given.shape == expected.shape
    # XLA takes what is denormal for zero.
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=smallest, equal_nan=True)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_a_primitive_computes_what_it_means(target: str, case: Any, bare: CompiledCell) -> None:
    name, arrays, params, shape, dtype = case
    normal = [
        np.where(np.abs(array) < 1e-37, 0, array).astype(array.dtype)
        if isinstance(array, np.ndarray) and array.dtype == np.float32
        else array
        for array in arrays
    ]
    inputs = {f"x{i}": array for i, array in enumerate(normal) if not isinstance(array, Literal)}
    assert_means(target, program(name, normal, params, shape, dtype), inputs, bare)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "subscripts",
    ["ab,cb->ac", "abc,dc->abd", "ab,bcd->acd", "abc,adb->acd", "acb,acd->abd", "dbc,abc->acd", "ab,ab->a"],
)
def test_a_contraction_computes_what_it_means(target: str, subscripts: str, bare: CompiledCell) -> None:
    sizes = {"a": 5, "b": 3, "c": 4, "d": 2}
    left, right, result = subscripts.replace("->", ",").split(",")
    inputs = {
        f"x{i}": RANDOM.normal(size=[sizes[k] for k in letters]).astype(np.float32)
        for i, letters in enumerate((left, right))
    }

    def shape(letters: str) -> tuple[int | str, ...]:
        return tuple("rows" if k == "a" else sizes[k] for k in letters)

    operands = (Value("x0", shape(left), "float32"), Value("x1", shape(right), "float32"))
    output = Value("y", shape(result), "float32")
    equation = Equation("einsum", operands, (output,), {"subscripts": subscripts}, "_cell.py:1")
    phase = Program("phase", operands, (), (equation,), (("out", output),))
    # Terms cancel.
    assert_means(target, phase, inputs, bare, smallest=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_tiles_of_any_size_are_reduced_and_multiplied(target: str, bare: CompiledCell) -> None:
    tile, square = ("rows", "height", "width"), ("rows", "height", "height")
    x = Value("x0", tile, "float32")
    gram, largest = Value("gram", square, "float32"), Value("largest", ("rows",), "float32")
    beside, out = Value("beside", ("rows", 1, 1), "float32"), Value("y", square, "float32")
    equations = (
        Equation("einsum", (x, x), (gram,), {"subscripts": "abc,adc->abd"}, "_cell.py:1"),
        Equation("reduce", (x,), (largest,), {"kind": "max", "axes": (1, 2)}, "_cell.py:2"),
        Equation("reshape", (largest,), (beside,), {}, "_cell.py:3"),
        Equation("mul", (gram, beside), (out,), {}, "_cell.py:4"),
    )
    phase = Program("phase", (x,), (), equations, (("out", out),))
    for shape in ((5, 3, 4), (1, 1, 1), (2, 7, 7)):
        assert_means(target, phase, {"x0": RANDOM.normal(size=shape).astype(np.float32)}, bare, smallest=1e-5)


def test_every_primitive_of_the_closed_set_is_said() -> None:
    assert STABLEHLO_TABLE.keys() == OPTAX_TABLE.keys() == CLOSED_SET
