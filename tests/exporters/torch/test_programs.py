"""What the torch exporter makes of programs means what the programs mean."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings

from mnemo_compile.cell import cell_config
from mnemo_compile.exporters.python._source import render
from mnemo_compile.exporters.torch._primitives import TABLE
from mnemo_compile.exporters.torch.runtime import _functions
from mnemo_compile.program import (
    compile_cell,
    Equation,
    evaluate,
    for_compiler,
    fuse,
    is_pointwise,
    Literal,
    Operand,
    PRIMITIVES,
    Program,
    separate,
    taken,
    unstack,
    Value,
)
from tests import programs
from tests.helpers import learned_cell
from tests.programs import largest, phases

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
    functions = {name: getattr(_functions, name) for name in ("baddbmm", "bmm", "rational_tanh")}
    exec(source + render(made, TABLE, "torch", "Tensor"), functions, space)
    function = space[made.name]
    exec_globals = function.__globals__
    exec_globals.update(space)
    tensors = {name: torch.tensor(value) for name, value in arrays.items()}
    weights_ = {name: torch.tensor(value) for name, value in (weights or {}).items()}
    weights_["products"] = torch.empty(0, dtype=next(iter(tensors.values())).dtype)
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
EXAMPLES = [
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
    equation("index", X, shape=("rows",), axis=1, place=2),
    equation("addcmul", X, Y, T, value=0.5),
    equation("add_scaled", X, T, alpha=0.25),
    equation("rational_tanh", X),
]  # fmt: skip


@pytest.mark.parametrize("made", EXAMPLES, ids=str)
@pytest.mark.parametrize("rows", [1, 5])
def test_each_primitive_means_what_the_closed_set_says(made: Equation, rows: int) -> None:
    inputs = (X, Y, BOOL, T)
    whole = program(made, inputs=inputs)
    arrays = arrays_of(inputs, rows)
    expected, given_ = evaluate(whole, arrays)["out"], run(whole, arrays)["out"]
    assert given_.dtype == expected.dtype and given_.shape == expected.shape
    np.testing.assert_allclose(given_, expected, rtol=1e-6)


def test_the_table_has_every_primitive() -> None:
    assert PRIMITIVES.keys() == TABLE.keys()


@settings(max_examples=60, deadline=None)
@given(phases())
def test_separating_and_fusing_change_nothing_but_rounding(whole: Program) -> None:
    arrays = programs.arrays_of(whole.inputs, 3, seed=0)
    weights = {name: value.astype(np.float64) for name, value in whole.arrays.items()}
    bound = largest(whole, arrays)
    assume(bound < 1e6)
    expected = evaluate(whole, arrays, np.float64)
    first, rest = separate(whole, 4)
    for lower in (fuse, lambda program: for_compiler(unstack(program))):
        for rows in (3, 1):
            env = {key: array[:rows] if key.startswith("context.") else array for key, array in arrays.items()}
            if first is not None:
                env.update(run(lower(first), {value.name: env[value.name] for value in first.inputs}, weights))
            results = run(lower(rest), {value.name: env[value.name] for value in rest.inputs}, weights)
            for key, value in results.items():
                np.testing.assert_allclose(value, expected[key], rtol=1e-9, atol=1e-9 * (1 + bound))


@pytest.mark.parametrize("name", ["measure", "encode", "update"])
def test_unstacking_a_cell_changes_nothing_but_rounding(name: str) -> None:
    compiled = compile_cell(learned_cell(3))
    _, rest = separate(compiled.programs[name], compiled.chunk_length)
    unstacked = unstack(rest)
    assert unstacked.inputs == rest.inputs
    arrays = arrays_of(rest.inputs, 5)
    expected = evaluate(rest, arrays, np.float64)
    for key, value in evaluate(unstacked, arrays, np.float64).items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-12)
    weights = {value.name: compiled.weights[value.name] for value in unstacked.weights}
    for key, value in run(for_compiler(unstacked), arrays, weights).items():
        assert np.linalg.norm(value - expected[key]) <= 2e-5 * np.linalg.norm(expected[key])


def test_an_update_becomes_one_loop() -> None:
    compiled = compile_cell(learned_cell(3))
    _, rest = separate(compiled.programs["update"], compiled.chunk_length)
    assert not is_pointwise(rest)
    assert is_pointwise(unstack(rest))


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


def arrays_of_tiles(values: tuple[Value, ...]) -> dict[str, np.ndarray]:
    """Two rows of 3 × 5."""
    random, free = np.random.default_rng(0), {"rows": 2, "height": 3, "width": 5}
    shapes = {value.name: [free[size] if isinstance(size, str) else size for size in value.shape] for value in values}
    return {name: np.asarray(0.1 + random.random(shape), np.float32) for name, shape in shapes.items()}


TILES = tuple(Value(name, ("rows", "height", "width"), "float32") for name in ("param", "grad"))
GRAM = Value("direction", ("rows", "height", "height"), "float32")


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (equation("einsum", *TILES, shape=GRAM.shape, subscripts="abc,adc->abd"), "bmm(param, grad.mT, "),
        (equation("einsum", GRAM, TILES[0], shape=TILES[0].shape, subscripts="abc,acd->abd"), "bmm(direction, param, "),
        (equation("broadcast", Value("context.t", ("rows", 1, 1), "float32"), shape=TILES[0].shape), "(rows, height, "),
        (equation("reshape", TILES[0], shape=("rows", 1, "height", "width")), "(rows, 1, height, width)"),
        (
            equation(
                "add_product",
                TILES[1],
                GRAM,
                TILES[0],
                shape=TILES[0].shape,
                subscripts="abc,acd->abd",
                alpha=0.5,
                beta=-2.0,
            ),
            "baddbmm(grad, direction, param, ",
        ),
    ],
    ids=lambda value: value.primitive if isinstance(value, Equation) else "",
)
def test_operations_on_tiles_know_their_free_sizes(made: Equation, text: str) -> None:
    values = (*TILES, GRAM, Value("context.t", ("rows", 1, 1), "float32"))
    whole = program(made, inputs=values)
    arrays = arrays_of_tiles(values)
    assert text in render(whole, TABLE, "torch", "Tensor")
    np.testing.assert_allclose(run(whole, arrays)["out"], evaluate(whole, arrays)["out"], rtol=1e-5, atol=1e-6)


def test_a_newton_schulz_step_is_three_products() -> None:
    cell = cell_config({"kind": "mnemosyne", "network": False}).build()
    program = compile_cell(cell).programs["orthogonalise"]
    _, rest = separate(program, cell.chunk_length)
    fused = fuse(rest)
    counts = collections.Counter(each.primitive for each in fused.equations)
    assert counts["einsum"] == 5 and counts["add_product"] == 10
    arrays = arrays_of_tiles(rest.inputs)
    expected = evaluate(rest, arrays, np.float64)
    weights = {value.name: fused.arrays[value.name] for value in fused.weights}
    for values in (evaluate(fused, arrays, np.float64), run(fused, arrays, weights)):
        for name, value in values.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("phase", ["update", "update_tiles"])
def test_a_step_that_is_taken_needs_no_choice(phase: str) -> None:
    cell = cell_config({"kind": "mnemosyne", "network": False}).build()
    program = compile_cell(cell).programs[phase]
    shorter = taken(program)
    assert shorter.name == f"taken_{phase}"
    assert [value for value in program.inputs if value not in shorter.inputs] == [
        value for value in program.inputs if value.name == "finite"
    ]
    selects = [sum(each.primitive == "select" for each in made.equations) for made in (program, shorter)]
    assert selects[1] < selects[0]
    arrays = arrays_of_tiles(program.inputs) if phase == "update_tiles" else arrays_of(program.inputs, 5)
    arrays["finite"] = np.ones_like(arrays["finite"])
    expected = evaluate(program, arrays, np.float64)
    for name, value in evaluate(shorter, arrays, np.float64).items():
        np.testing.assert_array_equal(value, expected[name])
