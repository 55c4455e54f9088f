"""Every primitive as ONNX nodes computes what it means, also of zeros, extremes and what is not finite."""

from typing import Any

import numpy as np
import onnxruntime
import pytest

from mnemo_compile.errors import MnemoError
from mnemo_compile.exporters.onnx._builder import finished, serialised
from mnemo_compile.exporters.onnx._graphs import phase_graph
from mnemo_compile.exporters.onnx._primitives import TABLE
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.program import CLOSED_SET, Equation, evaluate, Literal, Program, Value
from tests.exporters.primitives import CASES, program, RANDOM, Shape, SMALL

LEVELS = ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"]


def run(phase: Program, frozen: FrozenCell, arrays: list[Any], level: str) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.__members__[level]
    session = onnxruntime.InferenceSession(serialised(finished(phase_graph(phase), frozen)), options)
    given = {f"x{i}": array for i, array in enumerate(arrays) if not isinstance(array, Literal)}
    return np.asarray(session.run(["out"], given)[0])


def assert_means(phase: Program, frozen: FrozenCell, arrays: list[Any], level: str, smallest: float = 1e-40) -> None:
    given = run(phase, frozen, arrays, level)
    inputs = {f"x{i}": array for i, array in enumerate(arrays) if not isinstance(array, Literal)}
    truth = evaluate(phase, inputs, np.float64)["out"]
    with np.errstate(all="ignore"):
        expected = truth.astype(given.dtype)
    assert given.dtype == phase.outputs[0][1].dtype and given.shape == expected.shape
    np.testing.assert_allclose(given, expected, rtol=2e-6, atol=smallest, equal_nan=True)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_a_primitive_computes_what_it_means(
    case: tuple[str, list[Any], dict[str, Any], Shape | None, str | None], level: str, frozen: FrozenCell
) -> None:
    name, arrays, params, shape, dtype = case
    assert_means(program(name, arrays, params, shape, dtype), frozen, arrays, level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("subscripts", "shapes", "output"),
    [
        ("ab,cb->ac", [(5, 3), (4, 3)], ("rows", 4)),
        ("ab,bc->ac", [(5, 3), (3, 4)], ("rows", 4)),
        ("abc,dc->abd", [(5, 2, 3), (4, 3)], ("rows", 2, 4)),
        ("abc,c->ab", [(5, 2, 3), (3,)], ("rows", 2)),
        ("ab,bcd->acd", [(5, 3), (3, 2, 4)], ("rows", 2, 4)),
        ("abc,abd->acd", [(5, 3, 2), (5, 3, 4)], ("rows", 2, 4)),
        ("abc,adb->acd", [(5, 3, 2), (5, 4, 3)], ("rows", 2, 4)),
        ("ab,ac->abc", [(5, 3), (5, 2)], ("rows", 3, 2)),
        ("ab,ab->a", [(5, 3), (5, 3)], ("rows",)),
        ("abc,adc->abd", [(5, 2, 3), (5, 4, 3)], ("rows", 2, 4)),
        ("abc,acd->abd", [(5, 2, 3), (5, 3, 4)], ("rows", 2, 4)),
        ("abc,adc->adb", [(5, 2, 3), (5, 4, 3)], ("rows", 4, 2)),
    ],
)
def test_a_contraction_computes_what_it_means(
    subscripts: str, shapes: list[tuple[int, ...]], output: Shape, level: str, frozen: FrozenCell
) -> None:
    arrays = [RANDOM.normal(size=shape).astype(np.float32) for shape in shapes]
    operands = [
        Value(f"x{i}", ("rows" if shape[0] == 5 else shape[0], *shape[1:]), "float32") for i, shape in enumerate(shapes)
    ]
    equation = Equation(
        "einsum", tuple(operands), (Value("y", output, "float32"),), {"subscripts": subscripts}, "_cell.py:1"
    )
    phase = Program("phase", tuple(operands), (), (equation,), (("out", equation.output),))
    # Terms cancel.
    assert_means(phase, frozen, arrays, level, smallest=2e-6)


@pytest.mark.parametrize("level", LEVELS)
def test_free_sizes_of_a_tile_are_kept_by_reshapes_and_filled_by_broadcasts(level: str, frozen: FrozenCell) -> None:
    tile = ("rows", "height", "width")
    x, row = Value("x0", tile, "float32"), Value("x1", ("rows",), "float32")
    values = [Value(name, shape, "float32") for name, shape in (("deep", (*tile, 1)), ("flat", tile), ("half", tile))]
    beside, all_of_it = Value("beside", ("rows", 1, 1), "float32"), Value("all", tile, "float32")
    deep, flat, half = values
    equations = (
        Equation("reshape", (x,), (deep,), {}, "_cell.py:1"),
        Equation("reshape", (deep,), (flat,), {}, "_cell.py:2"),
        Equation("broadcast", (Literal(0.5, "float32"),), (half,), {}, "_cell.py:3"),
        Equation("reshape", (row,), (beside,), {}, "_cell.py:4"),
        Equation("broadcast", (beside,), (all_of_it,), {}, "_cell.py:5"),
    )
    outputs = (("out", flat), ("half", half), ("all", all_of_it))
    phase = Program("phase", (x, row), (), equations, outputs)
    arrays = {"x0": RANDOM.normal(size=(3, 2, 5)).astype(np.float32), "x1": np.arange(3, dtype=np.float32)}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.__members__[level]
    session = onnxruntime.InferenceSession(serialised(finished(phase_graph(phase), frozen)), options)
    given = list(map(np.asarray, session.run([name for name, _ in outputs], arrays)))
    assert np.array_equal(given[0], arrays["x0"]) and given[1].shape == (3, 2, 5)
    assert np.all(given[1] == 0.5) and np.array_equal(given[2], np.broadcast_to(arrays["x1"][:, None, None], (3, 2, 5)))


def test_every_primitive_of_the_closed_set_is_said_and_tested() -> None:
    assert TABLE.keys() == CLOSED_SET == {case[0] for case in CASES} | {"einsum"}


def test_a_value_that_is_several_outputs_and_an_input_that_is_one(frozen: FrozenCell) -> None:
    x = Value("x0", ("rows", 4), "float32")
    y = Value("y", ("rows", 4), "float32")
    twice = Program("phase", (x,), (), (Equation("neg", (x,), (y,), {}, ""),), (("a", y), ("b", y), ("x0", x)))
    session = onnxruntime.InferenceSession(serialised(finished(phase_graph(twice), frozen)))
    results = session.run(["a", "b", "next.x0"], {"x0": SMALL[0]})
    for given, expected in zip(results, (-SMALL[0], -SMALL[0], SMALL[0]), strict=True):
        np.testing.assert_array_equal(np.asarray(given), expected)


def test_a_primitive_that_is_not_known_is_refused_by_name_line_and_target() -> None:
    phase = program("cumsum", [SMALL], {}, None, None)
    with pytest.raises(
        MnemoError, match=r"cumsum \(_cell\.py:1\) cannot be said in onnx; say it with: abs, .*transpose"
    ):
        phase_graph(phase)


@pytest.mark.parametrize("dtype", ["complex64", "float16"])
def test_a_weight_of_a_dtype_that_is_not_there_is_refused_by_name(dtype: str) -> None:
    weight, x = Value("embed", (4,), dtype), Value("x0", ("rows", 4), "float32")
    equation = Equation("add", (x, weight), (Value("y", ("rows", 4), "float32"),), {}, "_cell.py:1")
    phase = Program(
        "phase", (x,), (weight,), (equation,), (("out", equation.output),), {"embed": np.ones(4, np.dtype(dtype))}
    )
    expected = f"the weight embed is {dtype}, which the onnx target does not have; it has float32, .*, bool$"
    with pytest.raises(MnemoError, match=expected):
        phase_graph(phase)
