"""`python -m benchmarks.inner_steps`: how many inner steps per second meta-training takes, beside loops over its tasks.

The family is a perceptron 64-32-10 on digits with batch 64. The cell is that of `mnemosyne-base`, or of another preset
whose first family is as small. All variants are jitted and take the same steps of the same tasks: one program over all
tasks, which lie on all devices as in meta-training; the program of one task's truncation, called for each task; and the
program of one task's step, called for each step. For two cores, `XLA_FLAGS=--xla_force_host_platform_device_count=2`.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from mnemo_compile.meta import load_config
from mnemo_compile.meta._sharding import over_tasks, task_mesh
from mnemo_compile.meta.inner_loop import InnerLoop, InnerState


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """The shortest time of several calls, after a first one."""
    jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Prints the figures and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="key=value, as for meta-train")
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    config = load_config(arguments.preset, tuple(arguments.overrides))
    cell = config.cell.build()
    weights = eqx.filter(cell, eqx.is_array)
    loop = InnerLoop(config.families[0].build(), cell, config.inner.augmentation, config.inner.truncation)
    keys = jax.random.split(jax.random.key(0), arguments.tasks)
    tasks = jax.jit(jax.vmap(lambda key: loop.draw(weights, key)))(keys)
    each = [jax.tree.map(lambda rows, place=place: rows[place], tasks) for place in range(arguments.tasks)]
    side_by_side = over_tasks(task_mesh(arguments.tasks), arguments.tasks)
    sharded = jax.device_put(tasks, side_by_side)
    # As in meta-training by evolution strategies, each task has weights of its own.
    own = jax.device_put(jax.tree.map(lambda w: jnp.stack([w] * arguments.tasks), weights), side_by_side)
    together = jax.jit(jax.vmap(loop.unroll), out_shardings=side_by_side)
    truncation = jax.jit(lambda task: loop.unroll(weights, task))
    restart = jax.jit(lambda task: loop.maybe_restart(weights, task))
    step = jax.jit(lambda task: loop.advance(weights, task, 1)[0])

    def step_by_step(task: InnerState) -> InnerState:
        task = restart(task)
        for _ in range(loop.truncation):
            task = step(task)
        return task

    steps = arguments.tasks * config.inner.truncation
    fast = steps / seconds(lambda: together(own, sharded), arguments.repeats)
    print(f"{loop.family.name}, {arguments.tasks} tasks, {config.inner.truncation} inner steps each")
    print(f"one program over all tasks, {side_by_side.mesh.size} devices  {fast:10,.0f} inner steps/s")
    for name, one in (("tasks", truncation), ("tasks and their steps", step_by_step)):
        slow = steps / seconds(lambda one=one: [one(task) for task in each], arguments.repeats)
        print(f"a jitted loop over {name:21}  {slow:10,.0f} inner steps/s, ratio {fast / slow:.1f}")


if __name__ == "__main__":
    main()
