"""Tasks over devices: one mesh on which tasks lie side by side, and all else on every device.

Programs are partitioned by XLA from what is said here of their arguments, their results and fresh tasks. An estimator
says what it computes, and nothing of where.
"""

import math
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from ..errors import UsageError

from ._estimators import AbstractUnroll, Inner, Weights

TASKS, COPIES = "tasks", "copies"


def task_mesh(count: int) -> Mesh:
    """The most devices that divide so many tasks, as many of each process.

    Raises `UsageError` where the processes do not divide them.
    """
    processes, here = jax.process_count(), jax.local_device_count()
    of_each = next((n for n in range(here, 0, -1) if count % (n * processes) == 0), None)
    if of_each is None:
        raise UsageError(
            f"{processes} processes cannot share {count} tasks or pairs of a family; "
            f"make inner.tasks a multiple of {2 * processes}"
        )
    devices = [
        device
        for process in range(processes)
        for device in [d for d in jax.devices() if d.process_index == process][:of_each]
    ]
    return Mesh(np.array(devices).reshape(-1, 1), (TASKS, COPIES))


def over_tasks(mesh: Mesh, count: int) -> NamedSharding:
    """An array whose leading axis is so many tasks. Devices that do not divide them hold copies."""
    shards = math.gcd(mesh.size, count)
    return NamedSharding(Mesh(mesh.devices.reshape(shards, -1), mesh.axis_names), PartitionSpec(TASKS))


def everywhere(sharding: NamedSharding) -> NamedSharding:
    """An array that is whole on every device of another."""
    return NamedSharding(sharding.mesh, PartitionSpec())


def put(tree: PyTree[np.ndarray], sharding: NamedSharding) -> PyTree[Array]:
    """Whole arrays, the same in every process, laid onto the devices."""
    return jax.tree.map(lambda x: jax.make_array_from_callback(np.shape(x), sharding, np.asarray(x).__getitem__), tree)


def fetch(tree: PyTree[Array]) -> PyTree[np.ndarray]:
    """Whole arrays in every process, which all have to call this."""

    def is_here(leaf: Array) -> bool:
        return leaf.is_fully_addressable or leaf.is_fully_replicated

    away, here = eqx.partition(tree, lambda leaf: not is_here(leaf))
    leaves = jax.tree.leaves(away)
    if leaves:
        away = jax.jit(lambda tree: tree, out_shardings=everywhere(leaves[0].sharding))(away)
    return jax.tree.map(np.asarray, eqx.combine(away, here))


class Spread(AbstractUnroll):
    """The same problems; those that are drawn side by side lie on different devices."""

    unroll: AbstractUnroll
    sharding: NamedSharding = eqx.field(static=True)

    def draw(self, weights: Weights, key: PRNGKeyArray) -> Inner:
        unroll, sharding = self.unroll, self.sharding

        # An estimator may carry no task, so that its arguments do not say how tasks lie. Under vmap, and only there, a
        # draw knows the axis of tasks.
        @jax.custom_batching.custom_vmap
        def draw(weights: Weights, key: PRNGKeyArray) -> Inner:
            return unroll.draw(weights, key)

        @draw.def_vmap
        def _(size: int, batched: Any, weights: Weights, key: PRNGKeyArray) -> tuple[Inner, Any]:
            axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(batched))
            tasks = jax.lax.with_sharding_constraint(jax.vmap(unroll.draw, in_axes=axes)(weights, key), sharding)
            return tasks, jax.tree.map(lambda _: True, tasks)

        return draw(weights, key)

    def run(self, weights: Weights, inner: Inner) -> tuple[Inner, Float[Array, ""]]:
        return self.unroll.run(weights, inner)

    def ended(self, inner: Inner) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        return self.unroll.ended(inner)
