"""Each primitive of the closed set with inputs for it, also zeros, extremes and what is not finite."""

from typing import Any

import numpy as np

from mnemo_compile.program import Equation, Literal, Operand, Program, Value

Shape = tuple[int | str, ...]

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

# Random bits, ties between neighbours in bfloat16, and what is too large for it.
PATTERNS = np.concatenate([RANDOM.integers(0, 2**32, 900), RANDOM.integers(0, 2**16, 92) * 2**16 + 2**15])
PATTERNS = np.concatenate(
    [PATTERNS, [0x7F7FFFFF, 0x7F7F7FFF, 0x7F7F8000, 0xFF7F8000, 0x7F800000, 0xFF800000, 0, 2**31]]
)
FLOATS = PATTERNS.astype(np.uint32).view(np.float32)
ROUNDED = np.where(np.isnan(FLOATS) | (np.abs(FLOATS) < 1.2e-38), 0, FLOATS).astype(np.float32).reshape(-1, 20)

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
    ("to_bfloat16", [ROUNDED], {}, None, None),
    ("to_bfloat16", [NUMBERS], {}, None, None),
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

# Of the operations that only programs lowered for a target hold.
LOWERED_CASES: list[tuple[str, list[Any], dict[str, Any], Shape | None, str | None]] = [
    ("index", [SMALL], {"axis": 2, "place": 1}, ("rows", 3), None),
    ("addcmul", [SMALL, SMALL[:, :, :1], SMALL], {"value": -0.5}, None, None),
    ("addcmul", [SMALL, SMALL, SMALL], {"value": 1.0}, None, None),
    ("add_scaled", [SMALL, SMALL[:, :, :1]], {"alpha": 0.25}, None, None),
    (
        "add_product",
        [SMALL[:, :, :3], SMALL, SMALL],
        {"subscripts": "abc,adc->abd", "alpha": 0.25, "beta": -1.5},
        None,
        None,
    ),
    ("rational_tanh", [SMALL], {}, None, None),
]


def program(name: str, arrays: list[Any], params: dict[str, Any], shape: Shape | None, dtype: str | None) -> Program:
    """A phase of one equation, of inputs `x0`, `x1` and so on."""
    operands: list[Operand] = [
        array if isinstance(array, Literal) else Value(f"x{i}", ("rows", *array.shape[1:]), str(array.dtype))
        for i, array in enumerate(arrays)
    ]
    output = Value("y", operands[0].shape if shape is None else shape, dtype or operands[0].dtype)
    read = operands[:1] if name == "broadcast" else operands
    equation = Equation(name, tuple(read), (output,), params, "_cell.py:1")
    inputs = tuple(operand for operand in operands if isinstance(operand, Value))
    return Program("phase", inputs, (), (equation,), (("out", output),))
