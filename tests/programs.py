"""Programs that are drawn at random: phases over chunks, as the passes for one target meet them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mnemo_compile.program import (
    broadcast_shapes,
    check,
    Equation,
    evaluate,
    Literal,
    Operand,
    PRIMITIVES,
    Program,
    Shape,
    Value,
)

CHUNKS = tuple(Value(name, ("rows", 4), "float32") for name in ("param", "grad", "memory.z"))
TENSORS = (Value("context.t", ("rows", 1), "float32"), Value("context.u", ("rows", 4), "float32"))
MATRIX = Value("mix", (2, 2), "float32")
MIX = np.array([[0.5, -1.25], [2, 0.75]], np.float32)
NUMBERS = tuple(Literal(number, "float32") for number in (0.5, 1.0, -2.0))


class Drawing:
    """A program while it is drawn. Outputs have the types that the rows of the table say."""

    def __init__(self) -> None:
        self.pool: list[Value] = [*TENSORS, *CHUNKS]
        self.equations: list[Equation] = []

    def add(self, primitive: str, *inputs: Operand, shape: Shape | None = None, **params: Any) -> Value:
        row = PRIMITIVES[primitive]
        draft = Equation(primitive, inputs, (Value("", shape or (), "float32"),), params, "cell.py:1")
        output = Value(f"v{len(self.equations)}", shape or row.shape(draft), row.dtype(draft))
        self.equations.append(Equation(primitive, inputs, (output,), params, f"cell.py:{len(self.equations)}"))
        return output

    def safe(self, primitive: str, operand: Operand) -> Operand:
        """The operand, such that its result and the result of a rounded operand are near each other."""
        match primitive, operand:
            case "exp", _:
                return self.add("tanh", operand)
            case (("rsqrt" | "div"), Value()):
                return self.add("add", self.add("abs", operand), Literal(1.0, "float32"))
        return operand

    def unary(self, primitive: str, x: Value) -> Value:
        return self.add(primitive, self.safe(primitive, x))

    def binary(self, primitive: str, x: Value, y: Operand) -> Value:
        return self.add(primitive, x, self.safe(primitive, y))


@st.composite
def phases(draw: st.DrawFn) -> Program:
    """Arithmetic over chunks, tensors and numbers, with views, stacks and contractions of stacks."""
    drawing = Drawing()
    for _ in range(draw(st.integers(2, 14))):
        drawing.pool.append(_step(draw, drawing))
    outputs = dict.fromkeys((drawing.pool[-1], draw(st.sampled_from(drawing.pool[len(TENSORS) + len(CHUNKS) :]))))
    is_mixed = any(MATRIX in equation.inputs for equation in drawing.equations)
    program = Program(
        "phase",
        (*CHUNKS, *TENSORS),
        (MATRIX,) if is_mixed else (),
        tuple(drawing.equations),
        tuple((f"out{i}", value) for i, value in enumerate(outputs)),
        {MATRIX.name: MIX} if is_mixed else {},
    )
    return check(program, "drawing")


BINARY = ("add", "sub", "mul", "div", "max", "min")
OF_ROWS = ("binary", "binary", "number", "unary", "products", "products", "place", "stack", "join")
OF_STACKS = ("binary", "number", "unary", "products", "mix", "mix", "weigh", "fold", "part", "turn")


def _step(draw: st.DrawFn, drawing: Drawing) -> Value:
    """The next value, most often made of the latest."""
    pool = drawing.pool
    x = pool[-1 - draw(st.integers(0, min(3, len(pool) - 1)))]
    fitting = [value for value in pool if len(value.shape) == len(x.shape) and _fit(x.shape, value.shape)][-5:]
    is_stack = len(x.shape) == 3
    match draw(st.sampled_from(OF_STACKS if is_stack else OF_ROWS)):
        case "binary":
            y = draw(st.sampled_from(fitting))
            return drawing.binary(draw(st.sampled_from(BINARY)), *draw(st.sampled_from([(x, y), (y, x)])))
        case "number":
            return drawing.binary(draw(st.sampled_from(BINARY)), x, draw(st.sampled_from(NUMBERS)))
        case "unary":
            return drawing.unary(draw(st.sampled_from(("neg", "abs", "exp", "tanh", "rsqrt"))), x)
        case "products":
            # A sum with a product, any factor of which may be scaled.
            left = _scaled(draw, drawing, x)
            product = drawing.add("mul", left, _scaled(draw, drawing, draw(st.sampled_from([left, *fitting]))))
            terms = draw(st.permutations([product, draw(st.sampled_from(fitting))]))
            return drawing.add(draw(st.sampled_from(("add", "sub"))), *terms)
        case "place":
            x, place = _scaled(draw, drawing, x), draw(st.integers(0, int(x.shape[-1]) - 1))
            column = drawing.add("slice", x, axis=1, start=place, stop=place + 1)
            return drawing.add("reshape", drawing.add("reshape", column, shape=("rows",)), shape=("rows", 1))
        case "stack":
            others = [value for value in pool if value.shape == x.shape]
            rows = [drawing.add("reshape", each, shape=(1, *x.shape)) for each in (x, draw(st.sampled_from(others)))]
            return drawing.add("concatenate", *rows, axis=0)
        case "join":
            joined = drawing.add("concatenate", x, draw(st.sampled_from(TENSORS)), axis=1)
            return drawing.add("slice", joined, axis=1, start=0, stop=int(x.shape[1]))
        case "mix":
            return drawing.add("einsum", MATRIX, x, subscripts="ab,bcd->acd")
        case "weigh":
            weights = drawing.add("reduce", x, kind="max", axes=(2,))
            return drawing.add("einsum", x, weights, subscripts="abc,ab->bc")
        case "fold":
            return drawing.add("reduce", x, kind=draw(st.sampled_from(("sum", "max", "min"))), axes=(0,))
        case "part":
            place = draw(st.integers(0, 1))
            cut = drawing.add("slice", x, axis=0, start=place, stop=place + 1)
            return drawing.add("reshape", cut, shape=x.shape[1:])
    turned = drawing.add("neg", drawing.add("transpose", x, permutation=(1, 0, 2)))
    return drawing.add("transpose", turned, permutation=(1, 0, 2))


def _scaled(draw: st.DrawFn, drawing: Drawing, x: Value) -> Value:
    return drawing.add("mul", x, draw(st.sampled_from(NUMBERS))) if draw(st.booleans()) else x


def _fit(left: Shape, right: Shape) -> bool:
    try:
        return bool(broadcast_shapes([left, right]))
    except ValueError:
        return False


def arrays_of(inputs: Sequence[Value], rows: int, seed: int) -> dict[str, np.ndarray]:
    """Arrays in float64. All chunks are of one tensor, whose row repeats."""
    random = np.random.default_rng(seed)
    shapes = {value.name: [rows if size == "rows" else int(size) for size in value.shape] for value in inputs}
    arrays = {name: random.normal(size=shape) for name, shape in shapes.items()}
    return {name: np.repeat(x[:1], rows, axis=0) if name.startswith("context.") else x for name, x in arrays.items()}


def largest(program: Program, arrays: Mapping[str, np.ndarray]) -> float:
    """The largest number that the program computes on the way."""
    every = Program(
        program.name,
        program.inputs,
        program.weights,
        program.equations,
        tuple((e.output.name, e.output) for e in program.equations),
        program.arrays,
    )
    return max(float(np.abs(value).max()) for value in evaluate(every, arrays, np.float64).values())
