"""Arrays on several devices are whole, and the work is divided."""

import os
import subprocess
import sys

LAID_OUT = """
import jax, jax.numpy as jnp, numpy as np
from mnemo_compile.meta._sharding import *
from mnemo_compile.meta.estimators import *
from mnemo_compile.meta.inner_loop import AbstractInnerLoop

for count in range(1, 40):
    mesh = task_mesh(count)
    assert mesh.size == max(n for n in range(1, 9) if count % n == 0)
    for tasks in (1, count, 3 * count, 8):
        sharding = over_tasks(mesh, tasks)
        x = np.full((tasks, 2), -0.0, np.float32)
        x[0, 0], x[-1, 1] = np.nan, np.inf
        laid = put(x, sharding)
        assert len({str(shard.index) for shard in laid.addressable_shards}) == np.gcd(mesh.size, tasks)
        assert fetch(laid).tobytes() == x.tobytes()
        assert fetch(put(x, everywhere(sharding))).tobytes() == x.tobytes()


class Matrices(AbstractInnerLoop):
    def draw(self, weights, key):
        return jax.random.normal(key, (20, 20))

    def unroll(self, weights, state):
        state = state @ state / 20 * weights
        return state, jnp.mean(state)

    def ended(self, state):
        return jnp.zeros((), bool), jnp.zeros((), bool)


def estimate(estimator, mesh):
    tasks = over_tasks(mesh, 8)
    loop, weights, key = ShardedLoop(Matrices(), tasks), jnp.ones(()), jax.random.key(0)
    carry = jax.jit(lambda: estimator.init(loop, weights, key), out_shardings=tasks)()
    step = jax.jit(lambda carry: estimator.step(loop, weights, carry, key), in_shardings=(tasks,))
    step = step.lower(carry).compile()
    return step(carry), step.cost_analysis()["flops"]


for estimator in (TruncatedBackpropagation(8), PersistentEvolution(16), EvolutionStrategies(2, 16)):
    (eight, part), (one, whole) = (estimate(estimator, task_mesh(size)) for size in (8, 1))
    assert part < whole / 6, estimator
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), eight, one)
"""


def test_each_device_has_its_part_of_the_tasks_and_of_the_work() -> None:
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    laid_out = [sys.executable, "-c", LAID_OUT]
    process = subprocess.run(laid_out, capture_output=True, text=True, env=environment, check=False)
    assert process.returncode == 0, process.stderr
