"""Roots and quotients whose derivatives are finite, so that meta-gradients are.

Their values are those of `jnp.sqrt`, `jax.lax.rsqrt` and `/`, and so are the programs that are traced from them. Where
the argument under the root, or the divisor, is so small that everything is zero, the derivative counts as zero.
Elsewhere no factor of it overflows before the others make it moderate.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LEAST = 1e-30
"""Arguments of a root, and divisors, at or below this have no derivative."""

_Pair = tuple[Array, Array]


@jax.custom_jvp
def root(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """√x"""
    return jnp.sqrt(x)


@root.defjvp
def _root_jvp(primals: tuple[Array], tangents: tuple[Array]) -> _Pair:
    (x,), (dx,) = primals, tangents
    y = root(x)
    return y, 0.5 * y * (dx * _inverse(x))


@jax.custom_jvp
def inverse_root(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """1 / √x"""
    return jax.lax.rsqrt(x)


@inverse_root.defjvp
def _inverse_root_jvp(primals: tuple[Array], tangents: tuple[Array]) -> _Pair:
    (x,), (dx,) = primals, tangents
    y = inverse_root(x)
    return y, -0.5 * y * (dx * _inverse(x))


@jax.custom_jvp
def quotient(x: Float[Array, "..."], divisor: Float[Array, "..."]) -> Float[Array, "..."]:
    """x / divisor, for divisors that are not negative."""
    return x / divisor


@quotient.defjvp
def _quotient_jvp(primals: _Pair, tangents: _Pair) -> _Pair:
    (x, divisor), (dx, ddivisor) = primals, tangents
    y = quotient(x, divisor)
    return y, (dx - y * ddivisor) * _inverse(divisor)


def _inverse(x: Array) -> Array:
    """1 / x, or 0 where x is at most `LEAST`."""
    return jnp.where(x > LEAST, 1 / jnp.where(x > LEAST, x, 1), 0)
