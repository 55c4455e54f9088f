"""Each primitive as a function of JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...program import Equation

Rule = Callable[[Equation, list[jax.Array], tuple[Any, ...]], jax.Array]
"""Maps an equation, its inputs and the shape of its output to the output."""


def _plain(function: Callable[..., jax.Array]) -> Rule:
    return lambda equation, inputs, shape: function(*inputs)


def _reduce(equation: Equation, inputs: list[jax.Array], shape: tuple[Any, ...]) -> jax.Array:
    return _REDUCE[equation.params["kind"]](inputs[0], equation.params["axes"])


def _slice(equation: Equation, inputs: list[jax.Array], shape: tuple[Any, ...]) -> jax.Array:
    axis, start, stop = (equation.params[key] for key in ("axis", "start", "stop"))
    return lax.slice_in_dim(inputs[0], start, stop, axis=axis)


def _einsum(equation: Equation, inputs: list[jax.Array], shape: tuple[Any, ...]) -> jax.Array:
    return jnp.einsum(equation.params["subscripts"], *inputs, precision=lax.Precision.HIGHEST)


_REDUCE = {"sum": lax.reduce_sum, "max": lax.reduce_max, "min": lax.reduce_min}

TABLE: dict[str, Rule] = {
    "neg": _plain(jnp.negative),
    "abs": _plain(jnp.abs),
    "exp": _plain(jnp.exp),
    "log": _plain(jnp.log),
    "log1p": _plain(jnp.log1p),
    "expm1": _plain(jnp.expm1),
    "sqrt": _plain(jnp.sqrt),
    "rsqrt": _plain(lax.rsqrt),
    "tanh": _plain(jnp.tanh),
    "sin": _plain(jnp.sin),
    "cos": _plain(jnp.cos),
    "erf": _plain(lax.erf),
    "floor": _plain(jnp.floor),
    "sign": _plain(jnp.sign),
    "is_finite": _plain(jnp.isfinite),
    "not": _plain(jnp.logical_not),
    "add": _plain(jnp.add),
    "sub": _plain(jnp.subtract),
    "mul": _plain(jnp.multiply),
    "div": _plain(jnp.divide),
    "max": _plain(jnp.maximum),
    "min": _plain(jnp.minimum),
    "pow": _plain(jnp.power),
    "gt": _plain(jnp.greater),
    "ge": _plain(jnp.greater_equal),
    "eq": _plain(jnp.equal),
    "and": _plain(jnp.logical_and),
    "or": _plain(jnp.logical_or),
    "select": _plain(jnp.where),
    "to_bfloat16": _plain(lambda x: lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)),
    "convert": lambda equation, inputs, shape: inputs[0].astype(equation.params["dtype"]),
    "reduce": _reduce,
    "reshape": lambda equation, inputs, shape: jnp.reshape(inputs[0], shape),
    "broadcast": lambda equation, inputs, shape: jnp.broadcast_to(inputs[0], shape),
    "transpose": lambda equation, inputs, shape: jnp.transpose(inputs[0], equation.params["permutation"]),
    "concatenate": lambda equation, inputs, shape: jnp.concatenate(inputs, axis=equation.params["axis"]),
    "slice": _slice,
    "einsum": _einsum,
}
"""Each primitive of the closed set as a function of JAX."""
