"""How arrays are divided over devices: each holds a part of every large array, and a part of the batch (FSDP)."""

from collections.abc import Callable
from typing import Any

import click
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "shards"


def mesh_of(devices: int | None, batch: int) -> Mesh:
    """A mesh of this many devices, all of them by default. Each takes its part of a batch."""
    present = jax.devices()
    count = len(present) if devices is None else devices
    if count > len(present):
        raise click.UsageError(f"--devices {count} is more than the {len(present)} that JAX sees; pass fewer.")
    if batch % count:
        raise click.UsageError(f"--batch {batch} cannot be divided over {count} devices; pass a multiple of {count}.")
    return Mesh(np.array(present[:count]), (AXIS,))


def sharding_of(mesh: Mesh, shape: tuple[int, ...], axis: int = 0) -> NamedSharding:
    """Divides this axis if the mesh divides its size, and copies the array to all devices if not."""
    is_divisible = axis < len(shape) and shape[axis] % mesh.size == 0
    spec = PartitionSpec(*(None for _ in range(axis)), AXIS) if is_divisible else PartitionSpec()
    return NamedSharding(mesh, spec)


def place(tree: Any, sharding: Callable[[jax.Array], NamedSharding]) -> Any:
    """The arrays of a tree, each in its sharding."""
    return jax.tree.map(lambda array: jax.device_put(array, sharding(array)), tree)
