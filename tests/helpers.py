"""Helpers of many tests: cells with random weights, tensors, gradients."""

import functools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mnemo_compile.cell import AbstractCell, AdamConfig, cell_config
from mnemo_compile.frozen import freeze, FrozenCell
from mnemo_compile.step import Layout, reference


@functools.cache
def learned_cell(seed: int = 0, kernel: str = "positive") -> AbstractCell:
    """A Mnemosyne whose network has an effect."""
    return learned(cell_config({"kind": "mnemosyne", "kernel": kernel}).build(), seed)


def learned(cell: AbstractCell, seed: int = 0) -> AbstractCell:
    """The cell with noise on all of its weights."""
    leaves, structure = jax.tree.flatten(cell)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noisy = [leaf + 0.3 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    return structure.unflatten(noisy)


def frozen_adam(name: str = "small-cell", learning_rate: float = 0.25) -> FrozenCell:
    """A cell that is verified in a third of the time, for tests that are not about the cell."""
    return freeze(AdamConfig(learning_rate=learning_rate).build(), name=name, version="1.0.0")


def normal(seed: int, shapes: Sequence[tuple[int, ...]], scale: float = 1.0) -> list[jax.Array]:
    """Tensors of standard normal numbers times `scale`."""
    random = np.random.default_rng(seed)
    return [jnp.asarray(scale * random.normal(size=shape), jnp.float32) for shape in shapes]


@eqx.filter_jit
def jitted_step(
    cell: AbstractCell,
    layout: Layout,
    param: jax.Array,
    grad: jax.Array,
    state: reference.OptimizerState,
    hyper: dict[str, jax.Array],
) -> tuple[jax.Array, reference.OptimizerState]:
    """The reference step, compiled once per layout."""
    return reference.step(cell, layout, param, grad, state, **hyper)


@eqx.filter_jit
def jitted_pack(layout: Layout, tensors: Sequence[jax.Array]) -> jax.Array:
    """Tensors as rows of chunks, compiled once per layout."""
    return reference.pack(layout, tensors)


@eqx.filter_jit
def jitted_unpack(layout: Layout, rows: jax.Array) -> list[jax.Array]:
    """The tensors in rows of chunks, compiled once per layout."""
    return reference.unpack(layout, rows)


def trajectory(
    cell: AbstractCell,
    shapes: Sequence[tuple[int, ...]],
    params: Sequence[jax.Array],
    history: Sequence[Sequence[jax.Array]],
    *,
    lr: float = 1.0,
    weight_decay: float = 0.0,
    total_steps: float = 0.0,
    pretrained: float = -1.0,
    state: reference.OptimizerState | None = None,
) -> tuple[list[jax.Array], reference.OptimizerState]:
    """Parameters and state after the reference steps of a history of gradients, from the first step or from a state."""
    layout = reference.layout_of(cell, shapes)
    options = {"lr": lr, "weight_decay": weight_decay, "total_steps": total_steps, "pretrained": pretrained}
    hyper = {name: jnp.array(float(value)) for name, value in options.items()}
    packed, state = jitted_pack(layout, params), reference.init(cell, layout) if state is None else state
    for grads in history:
        packed, state = jitted_step(cell, layout, packed, jitted_pack(layout, grads), state, hyper)
    return jitted_unpack(layout, packed), state


def relative(a: jax.Array, b: jax.Array) -> float:
    """‖a − b‖ / ‖b‖."""
    return float(jnp.linalg.norm((a - b).ravel()) / jnp.maximum(jnp.linalg.norm(b.ravel()), 1e-30))
