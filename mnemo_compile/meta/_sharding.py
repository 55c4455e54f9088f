"""Tasks over devices: they lie side by side on one mesh, and everything else is whole on every device.

XLA partitions the programs. It is told here how their arguments, their results and fresh tasks lie. An estimator says
what it computes, and not where.
"""

import math
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from ..errors import UsageError
from .inner_loop import AbstractInnerLoop, State, Weights

TASKS, COPIES = "tasks", "copies"


def task_mesh(count: int) -> Mesh:
    """The largest mesh that divides this many tasks, with equally many devices of each process.

    Raises `UsageError` where the number of processes does not divide them.
    """
    processes, here = jax.process_count(), jax.local_device_count()
    per_process = next((n for n in range(here, 0, -1) if count % (n * processes) == 0), None)
    if per_process is None:
        raise UsageError(
            f"{processes} processes cannot share {count} tasks or pairs of a family; "
            f"make inner.tasks a multiple of {2 * processes}"
        )
    devices = [
        device
        for process in range(processes)
        for device in [d for d in jax.devices() if d.process_index == process][:per_process]
    ]
    return Mesh(np.array(devices).reshape(-1, 1), (TASKS, COPIES))


def over_tasks(mesh: Mesh, count: int) -> NamedSharding:
    """The sharding of an array whose leading axis counts tasks. Devices that do not divide them hold copies."""
    shards = math.gcd(mesh.size, count)
    return NamedSharding(Mesh(mesh.devices.reshape(shards, -1), mesh.axis_names), PartitionSpec(TASKS))


def everywhere(sharding: NamedSharding) -> NamedSharding:
    """The sharding of an array that is whole on every device of another sharding."""
    return NamedSharding(sharding.mesh, PartitionSpec())


def put(tree: PyTree[np.ndarray], sharding: NamedSharding) -> PyTree[Array]:
    """Puts whole arrays, the same in every process, onto the devices."""
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


class ShardedLoop(AbstractInnerLoop):
    """The same inner loop; trainings that are drawn side by side lie on different devices."""

    loop: AbstractInnerLoop
    sharding: NamedSharding = eqx.field(static=True)

    def draw(self, weights: Weights, key: PRNGKeyArray) -> State:
        loop, sharding = self.loop, self.sharding

        # An estimator may carry no training, so that its arguments do not say how they lie. Only under vmap does a draw
        # know the axis of tasks.
        @jax.custom_batching.custom_vmap
        def draw(weights: Weights, key: PRNGKeyArray) -> State:
            return loop.draw(weights, key)

        @draw.def_vmap
        def _(size: int, batched: Any, weights: Weights, key: PRNGKeyArray) -> tuple[State, Any]:
            axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(batched))
            tasks = jax.lax.with_sharding_constraint(jax.vmap(loop.draw, in_axes=axes)(weights, key), sharding)
            return tasks, jax.tree.map(lambda _: True, tasks)

        return draw(weights, key)

    def unroll(self, weights: Weights, state: State) -> tuple[State, Float[Array, ""]]:
        return self.loop.unroll(weights, state)

    def ended(self, state: State) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        return self.loop.ended(state)
