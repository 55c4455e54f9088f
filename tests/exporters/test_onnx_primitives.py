"""Every primitive as ONNX nodes computes what it means, also of zeros, extremes and what is not finite."""

from typing import Any

import numpy as np
import onnxruntime
import pytest

from mnemo_compile.artifact import FrozenCell
from mnemo_compile.errors import MnemoError
from mnemo_compile.exporters._onnx_builder import finished, serialised
from mnemo_compile.exporters._onnx_graphs import phase_graph
from mnemo_compile.exporters._onnx_primitives import TABLE
from mnemo_compile.program import CLOSED_SET, Equation, evaluate, Literal, Operand, Program, Value

Shape = tuple[int | str, ...]
LEVELS = ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"]

RANDOM = np.random.default_rng(0)
EDGES = np.array(
    [0, 1, 0.5, 2, 3, 10, 20, 88, 100, 1e-3, 1e-7, 1e-20, 1e-38, 1e-41, 1e7, 1e10, 3e38, np.inf, np.nan], np.float32
)
SIGNED = np.concatenate([EDGES, -EDGES])
LEFT, RIGHT = (np.asarray(grid, np.float32) for grid in np.meshgrid(SIGNED, SIGNED))
MANY = np.concatenate([SIGNED, RANDOM.normal(size=200), 10 ** RANDOM.uniform(-8, 2, 200) * RANDOM.choice([-1, 1], 200)])
NUMBERS = np.resize(MANY, (14, 32)).astype(np.float32)
WHOLE = RANDOM.integers(-5, 6, (6, 4)).astype(np.int32)
SMALL = RANDOM.normal(size=(5, 3, 4)).astype(np.float32)

UNARY = "neg abs exp log log1p expm1 sqrt rsqrt tanh sin cos erf floor sign".split()
BINARY = "add sub mul div max min pow".split()

# Name, inputs, parameters, and shape and dtype of the output, which are those of the first input if not given.
CASES: list[tuple[str, list[Any], dict[str, Any], Shape | None, str | None]] = [
    *((name, [NUMBERS], {}, None, None) for name in UNARY),
    *((name, [LEFT, RIGHT], {}, None, None) for name in BINARY),
    *((name, [LEFT, RIGHT], {}, None, "bool") for name in ("gt", "ge", "eq")),
    *((name, [LEFT > 0, RIGHT > 0], {}, None, None) for name in ("and", "or")),
    *((name, [LEFT, Literal(3.0, "float32")], {}, None, None) for name in ("max", "min", "pow")),
    *((name, [WHOLE, WHOLE[::-1]], {}, None, None) for name in ("add", "sub", "mul", "max", "min")),
    *((name, [WHOLE, WHOLE[::-1]], {}, None, "bool") for name in ("gt", "ge", "eq")),
    *((name, [WHOLE], {}, None, None) for name in ("neg", "abs", "sign")),
    ("eq", [LEFT > 0, RIGHT > 0], {}, None, None),
    ("add", [SMALL, SMALL[:, :, :1]], {}, None, None),
    ("is_finite", [NUMBERS], {}, None, "bool"),
    ("not", [NUMBERS > 0], {}, None, None),
    ("select", [LEFT > 0, LEFT, RIGHT], {}, None, "float32"),
    ("select", [LEFT > 0, LEFT > 1, RIGHT > 1], {}, None, "bool"),
    ("select", [WHOLE > 0, WHOLE, WHOLE[::-1]], {}, None, "int32"),
    ("convert", [SMALL], {"dtype": "int32"}, None, "int32"),
    ("convert", [WHOLE], {"dtype": "float32"}, None, "float32"),
    ("convert", [LEFT], {"dtype": "bool"}, None, "bool"),
    ("convert", [LEFT > 0], {"dtype": "float32"}, None, "float32"),
    *(("reduce", [LEFT], {"kind": kind, "axes": (1,)}, ("rows",), None) for kind in ("sum", "max", "min")),
    *(("reduce", [SMALL], {"kind": kind, "axes": (1, 2)}, ("rows",), None) for kind in ("sum", "max", "min")),
    *(("reduce", [WHOLE], {"kind": kind, "axes": (1,)}, ("rows",), None) for kind in ("sum", "max", "min")),
    ("reduce", [SMALL], {"kind": "sum", "axes": ()}, None, None),
    ("reshape", [SMALL], {}, ("rows", 12), None),
    ("broadcast", [SMALL[:, :, :1]], {}, ("rows", 3, 7), None),
    ("broadcast", [Literal(1.5, "float32"), SMALL], {}, ("rows", 3), "float32"),
    ("transpose", [SMALL], {"permutation": (2, 0, 1)}, (4, "rows", 3), None),
    ("concatenate", [SMALL, SMALL[:, :, :2]], {"axis": 2}, ("rows", 3, 6), None),
    ("slice", [SMALL], {"axis": 2, "start": 1, "stop": 3}, ("rows", 3, 2), None),
]


def program(name: str, arrays: list[Any], params: dict[str, Any], shape: Shape | None, dtype: str | None) -> Program:
    operands: list[Operand] = [
        array if isinstance(array, Literal) else Value(f"x{i}", ("rows", *array.shape[1:]), str(array.dtype))
        for i, array in enumerate(arrays)
    ]
    output = Value("y", operands[0].shape if shape is None else shape, dtype or operands[0].dtype)
    read = operands[:1] if name == "broadcast" else operands
    equation = Equation(name, tuple(read), (output,), params, "_cell.py:1")
    inputs = tuple(operand for operand in operands if isinstance(operand, Value))
    return Program("phase", inputs, (), (equation,), (("out", output),))


def run(phase: Program, frozen: FrozenCell, arrays: list[Any], level: str) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.__members__[level]
    session = onnxruntime.InferenceSession(serialised(finished(phase_graph(phase), frozen)), options)
    given = {f"x{i}": array for i, array in enumerate(arrays) if not isinstance(array, Literal)}
    return np.asarray(session.run(["out"], given)[0])


def assert_means(phase: Program, frozen: FrozenCell, arrays: list[Any], level: str) -> None:
    given = run(phase, frozen, arrays, level)
    inputs = {f"x{i}": array for i, array in enumerate(arrays) if not isinstance(array, Literal)}
    truth = evaluate(phase, inputs, np.float64)["out"]
    with np.errstate(all="ignore"):
        expected = truth.astype(given.dtype)
    assert given.dtype == phase.outputs[0][1].dtype and given.shape == expected.shape
    np.testing.assert_allclose(given, expected, rtol=2e-6, atol=1e-40, equal_nan=True)


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
    assert_means(phase, frozen, arrays, level)


def test_every_primitive_of_the_closed_set_is_said_and_tested() -> None:
    assert TABLE.keys() == CLOSED_SET.keys() == {case[0] for case in CASES} | {"einsum"}


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
