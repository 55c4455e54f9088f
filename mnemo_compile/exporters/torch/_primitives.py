"""Each primitive as a torch expression."""

import numpy as np

from ...program import Equation, is_of_tiles, Literal, matrix_product
from ..python import bare, infix, Renderer, sizes


def _call(function: str) -> Renderer:
    return lambda equation, inputs, spare: f"torch.{function}({', '.join(inputs)})"


def _unary(function: str) -> Renderer:
    def text(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
        return f"{inputs[0]}.{function}_()" if spare[0] else f"torch.{function}({inputs[0]})"

    return text


def _arithmetic(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    """Writes in place if an operand is not needed again, which saves a third of the memory traffic."""
    left, right = inputs
    if spare[0]:
        return f"{left}.{equation.primitive}_({bare(right)})"
    if spare[1] and equation.primitive in ("add", "mul"):
        return f"{right}.{equation.primitive}_({bare(left)})"
    return infix(equation, inputs, spare)


def _power(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    return f"{inputs[0]}.pow_({bare(inputs[1])})" if spare[0] else f"torch.pow({', '.join(inputs)})"


def _extreme(function: str, bound: str) -> Renderer:
    def text(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
        for place in (0, 1):
            if isinstance(equation.inputs[1 - place], Literal):
                if spare[place]:
                    return f"{inputs[place]}.clamp_({bound}={inputs[1 - place]})"
                return f"torch.clamp({inputs[place]}, {bound}={inputs[1 - place]})"
        return f"torch.{function}({', '.join(inputs)})"

    return text


def _select(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    text = f"torch.where({', '.join(map(bare, inputs))})"
    # From two numbers torch makes an array of its default dtype.
    are_numbers = all(isinstance(operand, Literal) for operand in equation.inputs[1:])
    return f"{text}.to({_dtype(equation)})" if are_numbers else text


def _dtype(equation: Equation) -> str:
    """Floating-point arithmetic is in the dtype of the weights, float32 or float64."""
    dtype = equation.output.dtype
    return "like.dtype" if dtype == "float32" else f"torch.{dtype}"


def _reduce(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    kind, axes = equation.params["kind"], equation.params["axes"]
    if not axes:
        return inputs[0]
    function = {"sum": "sum", "max": "amax", "min": "amin"}[kind]
    # Integers would be summed in 64 bits.
    cast = f", dtype=torch.{equation.output.dtype}" if kind == "sum" and "float" not in equation.output.dtype else ""
    return f"torch.{function}({bare(inputs[0])}, dim={axes}{cast})"


def _broadcast(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    shape = sizes(equation.output.shape)
    if isinstance(equation.inputs[0], Literal):
        return f"torch.full({shape}, {inputs[0]}, dtype={_dtype(equation)}, device=like.device)"
    return f"{inputs[0]}.expand({shape})"


def _slice(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    axis, start, stop = (equation.params[key] for key in ("axis", "start", "stop"))
    return f"{inputs[0]}[{':, ' * axis}{start}:{stop}]"


def _einsum(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    """A matrix that acts on the first axis becomes a product of two matrices, which is faster.

    The precision of products of tiles is an option.
    """
    subscripts = equation.params["subscripts"]
    if is_of_tiles(equation):
        return f"bmm({_factors(subscripts, inputs)}, {_NARROW})"
    operands, _, result = subscripts.partition("->")
    letters = operands.split(",")
    is_product = (
        len(letters) == 2
        and len(letters[0]) == 2
        and len(letters[1]) > 1
        and letters[0][1] == letters[1][0]
        and result == letters[0][0] + letters[1][1:]
        and "rows" not in equation.inputs[0].shape
    )
    if is_product:
        columns = f"{inputs[1]}.reshape({equation.inputs[1].shape[0]}, -1)"
        return f"torch.mm({inputs[0]}, {columns}).reshape{sizes(equation.output.shape, '-1')}"
    return f'torch.einsum("{subscripts}", {", ".join(inputs)})'


_NARROW = 'weights["products"]'
"""An empty array, whose dtype is the one to which the factors of products of tiles are rounded."""


def _factors(subscripts: str, inputs: list[str]) -> str:
    """Two batches of matrices, turned where the einsum says so."""
    turned = matrix_product(subscripts)
    assert turned is not None
    return ", ".join(
        f"{bare(text)}" if not is_turned else f"{text}.mT" for text, is_turned in zip(inputs, turned, strict=True)
    )


def _add_product(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    alpha, beta = (_decimal(equation.params[key]) for key in ("alpha", "beta"))
    factors = _factors(equation.params["subscripts"], inputs[1:])
    return f"baddbmm({bare(inputs[0])}, {factors}, {_NARROW}, beta={beta}, alpha={alpha})"


def _addcmul(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    start, left, right = map(bare, inputs)
    value = equation.params["value"]
    factor = "" if value == 1 else f", value={_decimal(value)}"
    if spare[0]:
        return f"{inputs[0]}.addcmul_({left}, {right}{factor})"
    return f"torch.addcmul({start}, {left}, {right}{factor})"


def _add_scaled(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    alpha = _decimal(equation.params["alpha"])
    if spare[0]:
        return f"{inputs[0]}.add_({bare(inputs[1])}, alpha={alpha})"
    return f"torch.add({bare(inputs[0])}, {bare(inputs[1])}, alpha={alpha})"


def _decimal(value: float) -> str:
    return str(np.float32(value))


TABLE: dict[str, Renderer] = {
    **{name: _unary(name) for name in ("neg", "abs", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "tanh", "sin")},
    **{name: _unary(name) for name in ("cos", "erf", "floor", "sign")},
    **{name: _arithmetic for name in ("add", "sub", "mul", "div")},
    **{name: infix for name in ("gt", "ge", "eq", "and", "or")},
    "is_finite": _call("isfinite"),
    "not": _call("logical_not"),
    "pow": _power,
    "max": _extreme("maximum", "min"),
    "min": _extreme("minimum", "max"),
    "select": _select,
    "convert": lambda equation, inputs, spare: f"{inputs[0]}.to({_dtype(equation)})",
    "reduce": _reduce,
    "to_bfloat16": lambda equation, inputs, spare: f"to_bfloat16({bare(inputs[0])})",
    "reshape": lambda equation, inputs, spare: f"{inputs[0]}.reshape({sizes(equation.output.shape, '-1')})",
    "broadcast": _broadcast,
    "transpose": lambda equation, inputs, spare: f"{inputs[0]}.permute({equation.params['permutation']})",
    "concatenate": lambda equation, inputs, spare: f"torch.cat([{', '.join(inputs)}], dim={equation.params['axis']})",
    "slice": _slice,
    "einsum": _einsum,
    "rational_tanh": lambda equation, inputs, spare: f"rational_tanh({bare(inputs[0])})",
    "index": lambda equation, inputs, spare: (
        f"{inputs[0]}[{':, ' * equation.params['axis']}{equation.params['place']}]"
    ),
    "addcmul": _addcmul,
    "add_scaled": _add_scaled,
    "add_product": _add_product,
}
"""Each primitive, also those that only lowered programs hold, as a torch expression."""
