"""`python -m benchmarks.inner_steps`: how many inner steps a second meta-training takes, beside a loop over its tasks.

The family is a perceptron 64-32-10 on digits, batch 64; the cell that of `mnemosyne-base`. Both sides are jitted and
compute the same forward unrolls of the same tasks; one is a program over all of them, the other that of one task,
called for each.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from mnemo_compile.meta import load_config
from mnemo_compile.meta._unroll import Problem


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Time of a call, the least of some after a first one."""
    jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Prints both figures and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    config = load_config("base")
    cell = config.cell.build()
    weights = eqx.filter(cell, eqx.is_array)
    problem = Problem(config.families[0].build(), cell, config.inner.augmentation, config.inner.truncation)
    keys = jax.random.split(jax.random.key(0), arguments.tasks)
    tasks = jax.jit(jax.vmap(lambda key: problem.draw(weights, key)))(keys)
    each = [jax.tree.map(lambda rows, place=place: rows[place], tasks) for place in range(arguments.tasks)]
    together = jax.jit(jax.vmap(lambda task: problem.run(weights, task)))
    one = jax.jit(lambda task: problem.run(weights, task))
    steps = arguments.tasks * config.inner.truncation
    fast = steps / seconds(lambda: together(tasks), arguments.repeats)
    slow = steps / seconds(lambda: [one(task) for task in each], arguments.repeats)
    print(f"{problem.family.name}, {arguments.tasks} tasks, {config.inner.truncation} inner steps each")
    print(f"one program over all tasks  {fast:10,.0f} inner steps/s")
    print(f"a jitted loop over tasks    {slow:10,.0f} inner steps/s")
    print(f"ratio                       {fast / slow:10.1f}")


if __name__ == "__main__":
    main()
