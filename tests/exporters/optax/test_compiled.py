"""What XLA makes of a step: few kernels per tensor, and every donated buffer used again."""

import functools
import pathlib
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks._optax_step import compiled_figures, Figures, gpt, optimizer_step


def figures(transformation: Any) -> Figures:
    params = jax.eval_shape(functools.partial(gpt, 4, 512))
    return compiled_figures(optimizer_step(transformation), params, transformation, params)


def test_a_step_has_few_kernels_and_uses_donated_buffers_again(prior: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is divided for a GPU, and the compiler is that for CPUs, which makes three kernels per tensor of AdamW."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    ours, theirs = figures(prior.mnemosyne()), figures(optax.adamw(1e-3))
    assert ours.kernels <= 3 * theirs.kernels and ours.launches <= 5 * theirs.launches
    assert ours.aliased == ours.donated and ours.products <= 6


@pytest.mark.slow
def test_a_step_on_a_cpu_has_few_kernels_too(prior: Any) -> None:
    ours, theirs = figures(prior.mnemosyne()), figures(optax.adamw(1e-3))
    assert ours.kernels <= 4 * theirs.kernels
    assert ours.aliased == ours.donated and ours.products <= 6


def test_a_compiler_reads_the_update_of_tensors_of_one_shape_once(prior: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no place of a tensor in it, with which the kernels of all of them would differ."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for count in (2, 4):
        transformation = prior.mnemosyne(block_size=65536)
        params = [jax.ShapeDtypeStruct((256, 256), np.float32)] * count
        state = jax.eval_shape(transformation.init, params)
        text = jax.jit(optimizer_step(transformation)).lower(params, state, params).as_text()
        calls = re.findall(r"call @one\(([^)]*)\)", text)
        assert text.count("func.func private @one(") == 1 and len(calls) == count
        places = {name for call in calls for name in call.split(", ")[-2:]}
        barrier = re.findall(r"(%\d+):\d+ = stablehlo.optimization_barrier", text)
        assert len(places) == 2 * count and all(name.split("#")[0] in barrier for name in places)


def draw(seed: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, jax.Array]:
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


SHAPES = {
    "dense.kernel": (130, 140),
    "embedding": (201, 65),
    "long": (9001,),
    "norm.scale": (64,),
    "other.kernel": (130, 140),
    "scalar": (),
    "stack.embedding": (3, 50, 40),
}


@pytest.mark.parametrize("block_size", [2048, None])
def test_every_division_gives_the_same_steps(
    prior: Any, monkeypatch: pytest.MonkeyPatch, block_size: int | None
) -> None:
    results = []
    for kind in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda kind=kind: kind)
        transformation, params = prior.mnemosyne(block_size=block_size, weight_decay=0.1), draw(0, SHAPES)
        state, advance = transformation.init(params), jax.jit(optimizer_step(transformation))
        for seed in (1, 2):
            params, state = advance(params, state, draw(seed, SHAPES))
        results.append((params, state))
    for left, right in zip(*map(jax.tree.leaves, results), strict=True):
        assert np.linalg.norm(left - right) <= 1e-6 * np.linalg.norm(right)


def test_large_tensors_keep_their_dtypes(prior: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert prior._phases.ANY_SHAPE
    for dtype in (jnp.bfloat16, jnp.float32):
        params = {"embedding": jnp.ones((100, 100), dtype)}
        transformation = prior.mnemosyne(block_size=1024)
        updates, state = transformation.update(params, transformation.init(params), params)
        assert updates["embedding"].dtype == dtype and state.memory["fast"]["embedding"].dtype == jnp.float32
        assert np.all(np.asarray(updates["embedding"], np.float32) < 0)


PROGRAM = r"""
import os, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import re, jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import small_cell
jax.default_backend = lambda: "gpu"
SPECS = {
    "rows.embedding": ((256, 128), P("x")),
    "columns.embedding": ((64, 512), P(None, "x")),
    "unaligned": ((8000, 33), P("x")),
    "dense.kernel": ((1024, 40), P("x")),
    "long": ((16384,), P("x")),
    "replicated.embedding": ((300, 128), P()),
}
mesh = Mesh(np.array(jax.devices()), "x")
random = np.random.default_rng(0)
draw = lambda: {name: random.normal(size=shape).astype(np.float32) for name, (shape, _) in SPECS.items()}
place = lambda tree: {name: jax.device_put(tree[name], NamedSharding(mesh, SPECS[name][1])) for name in tree}
params, history = draw(), [draw() for _ in range(2)]
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
for name, (shape, spec) in SPECS.items():
    assert there[name].sharding.is_equivalent_to(NamedSharding(mesh, spec), len(shape)), name
    error = np.linalg.norm(np.asarray(there[name]) - np.asarray(here[name])) / np.linalg.norm(np.asarray(here[name]) - params[name])
    assert error <= 1e-4, (name, error)
moved = re.findall(r"= \(?\w+\[([\d,]*)\]\S* (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", text)
largest = max((int(np.prod([int(size) for size in sizes.split(",") if size])) for sizes in moved), default=0)
assert "num_partitions=8" in text and largest <= 2048, largest
"""  # noqa: E501


def test_shards_of_large_tensors_stay_where_they_are(prior: Any) -> None:
    folder = str(pathlib.Path(prior.__file__).parents[1])
    command = [sys.executable, "-B", "-c", f"import sys; sys.path.insert(0, {folder!r})\n{PROGRAM}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
