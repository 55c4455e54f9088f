"""Shards an array like another one. This is the only code that needs more of JAX than its stable API.

JAX up to 0.10 has this as `jax.experimental.shard_alike`, and later releases have no such function. Here a primitive
puts both arrays into a sharding group of Shardy, XLA's partitioner. Tested with JAX 0.10 and 0.12.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.extend.mlir.dialects import sdy
from jax.interpreters import batching, mlir

_groups = itertools.count()


@jax.custom_jvp
def shard_like(array: jax.Array, other: jax.Array) -> jax.Array:
    """The array, sharded like `other`, which has the same shape and dtype.

    This is a hint to the partitioner, which may otherwise replicate the array.
    """
    # The group is a parameter of the primitive: JAX caches lowerings by parameters, so two calls do not share a group.
    return _shard_like.bind(array, other, group=next(_groups))


@shard_like.defjvp
def _jvp(primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    return shard_like(*primals), tangents[0]


_shard_like = Primitive("shard_like")


def _eager(array: jax.Array, other: jax.Array, group: int) -> jax.Array:
    # Moving an array binds it to its device, so it is moved only if necessary.
    return array if array.sharding == other.sharding else jax.device_put(array, other.sharding)


def _batch(arrays: list[jax.Array], axes: list[int | None], group: int) -> tuple[jax.Array, int]:
    size = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
    array, other = (
        jnp.broadcast_to(array, (size, *array.shape)) if axis is None else jnp.moveaxis(array, axis, 0)
        for array, axis in zip(arrays, axes, strict=True)
    )
    return _shard_like.bind(array, other, group=group), 0


def _lower(_: mlir.LoweringRuleContext, array: Any, other: Any, group: int) -> list[Any]:
    # While JAX has this flag, users can choose the older partitioner, which has no sharding groups.
    if getattr(jax.config, "jax_use_shardy_partitioner", True):
        sdy.sharding_group(array, group)
        sdy.sharding_group(other, group)
    return [array]


_shard_like.def_impl(_eager)
_shard_like.def_abstract_eval(lambda array, other, group: array)
batching.primitive_batchers[_shard_like] = _batch
mlir.register_lowering(_shard_like, _lower)
