"""The optax export works where parameters lie on several devices, and leaves them there."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = r"""
import json, os, re, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import small_cell

CASES = {
    "rows": ((8,), {"rows": ((256, 128), P("x"))}),
    "columns": ((8,), {"columns": ((64, 512), P(None, "x"))}),
    "both": ((4, 2), {"both": ((128, 256), P("x", "y")), "expert": ((8, 64, 64), P(("x", "y")))}),
    "kernels": ((8,), {"kernel": ((3, 3, 32, 128), P(None, None, None, "x")), "deep": ((3, 3, 64, 64), P(None, None, "x"))}),
    "small": ((8,), {"bias": ((64,), P("x")), "scalar": ((), P())}),
    "replicated": ((8,), {"w": ((300, 128), P()), "b": ((300,), P())}),
    "unaligned": ((8,), {"w": ((1000, 33), P("x"))}),
}
sizes, specs = CASES[sys.argv[1]]
mesh = Mesh(np.array(jax.devices()).reshape(sizes), ("x", "y")[: len(sizes)])
random = np.random.default_rng(0)
draw = lambda: {name: random.normal(size=shape).astype(np.float32) for name, (shape, _) in specs.items()}
place = lambda tree: {name: jax.device_put(tree[name], NamedSharding(mesh, specs[name][1])) for name in tree}
params, history = draw(), [draw() for _ in range(3)]
transformation = small_cell.mnemosyne(total_steps=5, block_size=8192)

def advance(params, state, grads):
    updates, state = transformation.update(grads, state, params)
    return optax.apply_updates(params, updates), state

here, there = params, place(params)
here_state, there_state = transformation.init(here), transformation.init(there)
alone, shared = jax.jit(advance), jax.jit(advance, donate_argnums=(0, 1))
text = shared.lower(there, there_state, place(history[0])).compile().as_text()
for grads in history:
    here, here_state = alone(here, here_state, grads)
    there, there_state = shared(there, there_state, place(grads))
gathered = [
    int(np.prod([int(size) for size in sizes.split(",") if size]))
    for sizes in re.findall(r"= \(?\w+\[([\d,]*)\]\S* (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", text)
]
error = lambda x, y, start: float(np.linalg.norm(np.asarray(x) - np.asarray(y)) / np.linalg.norm(np.asarray(y) - start))
kept = lambda tree: all(tree[name].sharding.is_equivalent_to(NamedSharding(mesh, spec), len(shape)) for name, (shape, spec) in specs.items())
print(json.dumps({
    "update": max(error(there[name], here[name], params[name]) for name in specs),
    "memory": max(error(slot[name], here_state.memory[key][name], 0) for key, slot in there_state.memory.items() for name in specs),
    "kept": kept(there) and all(map(kept, there_state.memory.values())),
    "largest_gathered": max(gathered, default=0),
    "used": text.count("num_partitions=8"),
}))
"""  # noqa: E501


SELDOM = ("both", "kernels", "replicated", "unaligned")


@pytest.mark.parametrize(
    "case",
    ["rows", "columns", "small", *(pytest.param(case, marks=pytest.mark.slow) for case in SELDOM)],
)
def test_shared_parameters_step_as_whole_ones_and_stay_where_they_are(optax_package: Any, case: str) -> None:
    folder = pathlib.Path(optax_package.__file__).parents[1]
    command = [sys.executable, "-B", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{PROGRAM}", case]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["used"] and result["kept"]
    assert result["update"] <= 1e-5 and result["memory"] <= 1e-5
    if case != "unaligned":
        # Nothing moves between devices but small tensors and sums.
        assert result["largest_gathered"] <= 2048
