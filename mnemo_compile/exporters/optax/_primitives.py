"""Each primitive as a jax.numpy expression."""

from ...program import Equation, is_of_tiles
from ..python import infix, Renderer, sizes


def _call(function: str) -> Renderer:
    return lambda equation, inputs, spare: f"{function}({', '.join(inputs)})"


def _broadcast(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    return f"jnp.broadcast_to({inputs[0]}, {sizes(equation.output.shape, 'rows')})"


def _concatenate(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    return f"jnp.concatenate([{', '.join(inputs)}], axis={equation.params['axis']})"


def _slice(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    axis, start, stop = (equation.params[key] for key in ("axis", "start", "stop"))
    return f"{inputs[0]}[{':, ' * axis}{start}:{stop}]"


def _reduce(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    return f"jnp.{equation.params['kind']}({inputs[0]}, axis={equation.params['axes']})"


def _einsum(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    """The precision of products of tiles is an option."""
    if is_of_tiles(equation):
        return f'einsum("{equation.params["subscripts"]}", {", ".join(inputs)})'
    return f'jnp.einsum("{equation.params["subscripts"]}", {", ".join(inputs)}, precision="highest")'


def _repeat(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    body = equation.params["body"]
    (name, _), times = body.outputs[0], equation.params["times"]
    return f'lax.fori_loop(0, {times}, lambda _, x: {body.name}(weights, {{"{name}": x}})["{name}"], {inputs[0]})'


TABLE: dict[str, Renderer] = {
    **{
        name: _call(f"jnp.{name}")
        for name in ("abs", "exp", "log", "log1p", "expm1", "sqrt", "tanh", "sin", "cos", "floor", "sign")
    },
    **{name: infix for name in ("add", "sub", "mul", "div", "gt")},
    "neg": _call("jnp.negative"),
    "rsqrt": _call("lax.rsqrt"),
    "erf": _call("lax.erf"),
    "is_finite": _call("jnp.isfinite"),
    "not": _call("jnp.logical_not"),
    "max": _call("jnp.maximum"),
    "min": _call("jnp.minimum"),
    "pow": _call("jnp.power"),
    "ge": _call("jnp.greater_equal"),
    "eq": _call("jnp.equal"),
    "and": _call("jnp.logical_and"),
    "or": _call("jnp.logical_or"),
    "select": _call("jnp.where"),
    "to_bfloat16": lambda equation, inputs, spare: f"lax.reduce_precision({inputs[0]}, 8, 7)",
    "convert": lambda equation, inputs, spare: f"{inputs[0]}.astype(jnp.{equation.params['dtype']})",
    "reduce": _reduce,
    "reshape": lambda equation, inputs, spare: f"{inputs[0]}.reshape{sizes(equation.output.shape, '-1')}",
    "broadcast": _broadcast,
    "transpose": lambda equation, inputs, spare: f"{inputs[0]}.transpose({equation.params['permutation']})",
    "concatenate": _concatenate,
    "slice": _slice,
    "einsum": _einsum,
}
"""Each primitive of the closed set as a jax.numpy expression."""

RENDERERS: dict[str, Renderer] = {**TABLE, "repeat": _repeat}
"""The closed set, and the loop that `roll` makes."""
