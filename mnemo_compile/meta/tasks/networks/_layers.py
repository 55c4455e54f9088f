"""Tensors and functions that several networks are made of."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._interface import Tensor

Activation = Literal["relu", "gelu", "tanh", "silu"]


def matrix(name: str, rows: int, columns: int, gain: float = 1.0) -> Tensor:
    """A matrix whose outputs have the variance of its inputs, times `gain` squared."""
    return Tensor((rows, columns), gain * rows**-0.5, name=name)


def bias(name: str, width: int) -> Tensor:
    """Zeros."""
    return Tensor((width,), name=name)


def linear(name: str, rows: int, columns: int, gain: float = 1.0) -> tuple[Tensor, Tensor]:
    """A matrix and its bias."""
    return matrix(f"{name}.weight", rows, columns, gain), bias(f"{name}.bias", columns)


def norm(name: str, width: int) -> tuple[Tensor, Tensor]:
    """The ones that a normalisation multiplies by, and the bias that it adds."""
    return Tensor((width,), 0.0, 1.0, f"{name}.weight"), bias(f"{name}.bias", width)


def activate(name: Activation, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The nonlinearity of that name."""
    return {"relu": jax.nn.relu, "gelu": jax.nn.gelu, "tanh": jnp.tanh, "silu": jax.nn.silu}[name](x)


def normalise(x: Float[Array, "*shape width"], gain: Array, bias: Array | None = None) -> Float[Array, "*shape width"]:
    """Layer normalisation with a bias, root-mean-square normalisation without."""
    if bias is None:
        return x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + 1e-5) * gain
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-5) * gain + bias
