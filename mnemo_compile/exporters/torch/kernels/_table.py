"""Each elementwise primitive as an expression of Triton."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Renderer = Callable[[list[str], Mapping[str, Any]], str]
"""From the texts of the inputs and the parameters of an equation to an expression."""


def _call(function: str) -> Renderer:
    return lambda inputs, params: f"{function}({', '.join(inputs)})"


def _infix(sign: str) -> Renderer:
    return lambda inputs, params: f"{inputs[0]} {sign} {inputs[1]}"


def _extreme(function: str) -> Renderer:
    """What is not a number stays so, as everywhere else."""
    return lambda inputs, params: f"{function}({', '.join(inputs)}, propagate_nan=tl.PropagateNan.ALL)"


def _convert(inputs: list[str], params: Mapping[str, Any]) -> str:
    if params["dtype"] == "bool":
        return f"{inputs[0]} != 0"
    return f"({inputs[0]}).to(tl.{params['dtype']})"


def _scaled(value: float, text: str) -> str:
    return text if value == 1 else f"{np.float32(value)} * {text}"


TABLE: dict[str, Renderer] = {
    "neg": lambda inputs, params: f"-{inputs[0]}",
    "not": lambda inputs, params: f"{inputs[0]} == 0",
    **{name: _call(f"tl.{name}") for name in ("abs", "exp", "log", "rsqrt", "sin", "cos", "erf", "floor")},
    "sqrt": _call("tl.sqrt_rn"),
    **{name: _call(name) for name in ("log1p", "expm1", "tanh", "sign", "is_finite", "to_bfloat16")},
    "pow": _call("power"),
    **{name: _infix(sign) for name, sign in (("add", "+"), ("sub", "-"), ("mul", "*"), ("div", "/"))},
    **{name: _infix(sign) for name, sign in (("gt", ">"), ("ge", ">="), ("eq", "=="), ("and", "&"), ("or", "|"))},
    "max": _extreme("tl.maximum"),
    "min": _extreme("tl.minimum"),
    "select": _call("tl.where"),
    "convert": _convert,
    "addcmul": lambda inputs, params: f"{inputs[0]} + {_scaled(params['value'], inputs[1])} * {inputs[2]}",
    "add_scaled": lambda inputs, params: f"{inputs[0]} + {_scaled(params['alpha'], inputs[1])}",
}
"""Functions without `tl.` are in the file of helpers that a package holds."""
