"""The optimizer: gathers tensors into rows of chunks, runs the cell's phases over them, and gives back the updates."""

import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import load_file

from . import _phases
from ._checks import check_options, check_state, floating_leaves, leaves_like
from ._phases import CHUNK_LENGTH, INPUTS, MEMORY, STATE
from ._rows import Phase, plan, Rows, Shape, sums, Tensors


class MnemosyneState(NamedTuple):
    """State of the transformation."""

    step: jax.Array
    """Steps taken."""
    skipped: jax.Array
    """Steps refused because a gradient was not finite."""
    memory: dict[str, Any]
    """For each slot a tree like the parameters', in float32; an array has the parameter's axes and then the slot's."""
    recall: dict[str, jax.Array]
    """What is remembered of each tensor, in rows, in the order of the tree's leaves; empty ones have none."""


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    return load_file(pathlib.Path(__file__).with_name("weights.safetensors"))


def mnemosyne(
    lr: float | jax.Array | Callable[[jax.Array], Any] = 1.0,
    weight_decay: float | jax.Array = 0.0,
    total_steps: int | jax.Array | None = None,
    block_size: int = 2**18,
) -> optax.GradientTransformationExtraArgs:
    """A learned optimizer. Its step size is part of what it has learned, so there is no learning rate to find.

    **Arguments:**

    - `lr`: multiplies the step; a number or a schedule, called with the number of steps taken.
    - `weight_decay`: decoupled; a step moves a parameter by `-lr * weight_decay * parameter` besides.
    - `total_steps`: how many steps will be taken, if that is known. Steps then shrink towards the end.
    - `block_size`: coordinates that are worked on at once, which bounds the workspace. An accelerator with memory to
      spare is faster with more.

    **Returns:**

    A transformation whose `update` needs the parameters. Arithmetic and state are float32. A step in which any gradient
    is not finite gives updates of zero and changes no state but the count `skipped`.

    Under `jax.jit` with parameters and state donated, a step needs the updates and a block besides. Parameters may be
    shared among devices: state lies where they do, and of a large one nothing is gathered if each device holds whole
    chunks of `CHUNK_LENGTH` consecutive coordinates.
    """
    check_options(lr, weight_decay, total_steps, block_size)
    block = max(block_size // CHUNK_LENGTH, 1) * CHUNK_LENGTH

    def init(params: optax.Params) -> MnemosyneState:
        tensors = sum(1 for leaf in floating_leaves(params) if jnp.size(leaf))
        return MnemosyneState(
            step=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            memory={
                slot: jax.tree.map(functools.partial(_zeros, shape=shape), params) for slot, shape in MEMORY.items()
            },
            recall={
                name: jnp.tile(_weights()[f"initial.{name}"], (tensors, *(1 for _ in shape)))
                for name, shape in STATE.items()
            },
        )

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, MnemosyneState]:
        del extra_args
        if params is None:
            raise ValueError("mnemosyne needs the parameters: call update(grads, state, params)")
        leaves = floating_leaves(params)
        present = [place for place, leaf in enumerate(leaves) if jnp.size(leaf)]
        check_state(state, len(present))
        trees = {"param": leaves, "grad": leaves_like(params, updates, "the gradients")}
        for slot, shape in MEMORY.items():
            trees[f"memory.{slot}"] = leaves_like(params, state.memory[slot], f"the state's memory {slot!r}", shape)
        tensors = {name: [jnp.asarray(arrays[place]) for place in present] for name, arrays in trees.items()}
        hyper = {
            "clock.step": state.step,
            "clock.total": 0 if total_steps is None else total_steps,
            "hyper.lr": lr(state.step) if callable(lr) else lr,
            "hyper.weight_decay": weight_decay,
        }
        recall = {name: jnp.asarray(value) for name, value in state.recall.items()}
        tensors, recall, finite = _step(tensors, recall, hyper, block)

        def unflatten(name: str, old: Sequence[Any]) -> Any:
            new = dict(zip(present, tensors[name], strict=True))
            everywhere = [new.get(place, value) for place, value in enumerate(old)]
            return jax.tree.unflatten(jax.tree.structure(params), everywhere)

        counted = finite.astype(jnp.int32)
        return unflatten("grad", [jnp.zeros_like(leaf) for leaf in leaves]), MnemosyneState(
            step=state.step + counted,
            skipped=state.skipped + 1 - counted,
            memory={slot: unflatten(f"memory.{slot}", trees[f"memory.{slot}"]) for slot in MEMORY},
            recall=recall,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _zeros(leaf: Any, shape: Shape) -> jax.Array:
    """Of the parameter's shape and then this one, made of the parameter so that it lies where that does."""
    zeros = jnp.zeros_like(leaf, jnp.float32)
    return jnp.broadcast_to(zeros.reshape((*zeros.shape, *(1 for _ in shape))), (*zeros.shape, *shape))


def _step(tensors: Tensors, recall: Rows, hyper: Mapping[str, Any], block: int) -> tuple[Tensors, Rows, jax.Array]:
    """The tensors with each gradient replaced by its update, the next state, and whether the gradients are finite."""
    shapes = [leaf.shape for leaf in tensors["param"]]
    if not shapes:
        return tensors, recall, jnp.array(True)
    # A gradient's place is where its update goes, so it has to hold what the parameter can.
    dtypes = [leaf.dtype for leaf in tensors["param"]]
    grads = zip(tensors["grad"], dtypes, strict=True)
    tensors = {**tensors, "grad": [grad.astype(jnp.promote_types(grad.dtype, dtype)) for grad, dtype in grads]}
    weights = {name: jnp.asarray(value) for name, value in _weights().items()}
    rows: Rows = {f"state.{name}": value for name, value in recall.items()}
    rows.update((name, jnp.asarray(value)) for name, value in _facts(shapes).items())
    for name, value in hyper.items():
        rows[name] = jnp.full(len(shapes), jnp.asarray(value, jnp.float32))
    everything, samples = plan(shapes, block)

    def bound(phase: Any) -> Phase:
        return functools.partial(phase, weights)

    def summed(name: str, parts: Sequence[Any]) -> Rows:
        """The rows that a phase gives for parts of the tensors, summed for each tensor."""
        if name not in INPUTS:
            return {}
        totals = [part.summed(bound(getattr(_phases, name)), INPUTS[name], tensors, rows) for part in parts]
        owner = np.concatenate([part.tensors for part in parts])
        return sums({key: jnp.concatenate([total[key] for total in totals]) for key in totals[0]}, owner)

    moments = summed("measure", everything)
    rows.update(moments)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in moments.values()]))
    rows["guard.finite"] = jnp.full(len(shapes), finite.astype(jnp.float32))
    rows.update(summed("encode", samples))
    if "recall" in INPUTS:
        recalled = _phases.recall(weights, {name: rows[name] for name in INPUTS["recall"]})
        rows.update((name, value) for name, value in recalled.items() if name.startswith("context."))
        recall = {name: recalled[f"state.{name}"] for name in recall}
    rows.update(summed("probe", samples))

    def advance(inputs: Rows) -> Rows:
        outputs = bound(_phases.update)(inputs)
        return {**outputs, "grad": outputs.pop("param") - inputs["param"]}

    for part in everything:
        tensors = part.mapped(advance, INPUTS["update"], tensors, rows)
    tensors["grad"] = [update.astype(dtype) for update, dtype in zip(tensors["grad"], dtypes, strict=True)]
    return tensors, recall, finite


def _facts(shapes: Sequence[Shape]) -> dict[str, np.ndarray]:
    """What the cell is told of each tensor's shape."""
    matrix = [len(shape) >= 2 for shape in shapes]
    aspect = [
        max(shape) * max(shape) / math.prod(shape) if is_matrix else 1.0
        for shape, is_matrix in zip(shapes, matrix, strict=True)
    ]
    return {
        "facts.coordinates": np.array([math.prod(shape) for shape in shapes], np.float32),
        "facts.matrix": np.array(matrix, np.float32),
        "facts.aspect": np.array(aspect, np.float32),
    }
