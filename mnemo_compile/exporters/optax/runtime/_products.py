"""Products of the matrices in tiles, in a precision of our own, whatever JAX's ambient one is."""

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import get_args, Literal

import jax
import jax.numpy as jnp
from jax import lax

Precision = Literal["bfloat16", "tf32", "float32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_precision: contextvars.ContextVar[Precision] = contextvars.ContextVar("precision", default="float32")


@contextlib.contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Products that are traced in this context round their inputs to this precision on an accelerator."""
    token = _precision.set(precision)
    try:
        yield
    finally:
        _precision.reset(token)


def einsum(subscripts: str, *arrays: jax.Array) -> jax.Array:
    """The product of arrays of float32, summed in float32. On a CPU the inputs are not rounded."""
    return _einsum(subscripts, _precision.get(), *arrays)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _einsum(subscripts: str, precision: Precision, *arrays: jax.Array) -> jax.Array:
    exact = functools.partial(jnp.einsum, subscripts, precision=lax.Precision.HIGHEST)
    if precision == "float32":
        return exact(*arrays)
    rounded = functools.partial(rounded_einsum, subscripts, precision)
    return lax.platform_dependent(*arrays, cpu=exact, default=rounded)


def rounded_einsum(subscripts: str, precision: Precision, *arrays: jax.Array) -> jax.Array:
    """The product on an accelerator of inputs that are rounded to bfloat16 or tf32."""
    if precision == "bfloat16":
        narrow = [array.astype(jnp.bfloat16) for array in arrays]
        # Without an explicit precision JAX's ambient one would apply.
        return jnp.einsum(subscripts, *narrow, precision=lax.Precision.DEFAULT, preferred_element_type=jnp.float32)
    return jnp.einsum(subscripts, *arrays, precision=lax.Precision.HIGH)
