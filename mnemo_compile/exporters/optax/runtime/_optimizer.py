"""The optimizer: gathers tensors into rows of chunks, runs the cell's phases over them, and gives back the updates."""

import functools
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
from ._rows import Phase, plan, Rows, sums, Tensors
from ._tensors import Chooser, facts, initial, is_kept, kept_dtype, kept_shape, roles_of


class MnemosyneState(NamedTuple):
    """State of the transformation."""

    step: jax.Array
    """Steps taken."""
    skipped: jax.Array
    """Steps refused because a gradient was not finite."""
    memory: dict[str, Any]
    """For each slot a tree like the parameters', in float32 or bfloat16.

    An array has the parameter's axes and then the slot's; of a slot that chunks keep it has an axis of chunks instead
    of the parameter's axes. Where a parameter does not keep the slot it has the shape `(0,)`.
    """
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
    roles: Chooser | None = None,
) -> optax.GradientTransformationExtraArgs:
    """A learned optimizer. Its step size is part of what it has learned, so there is no learning rate to find.

    **Arguments:**

    - `lr`: multiplies the step; a number or a schedule, called with the number of steps taken.
    - `weight_decay`: decoupled; a step moves a parameter by `-lr * weight_decay * parameter` besides.
    - `total_steps`: how many steps will be taken, if that is known. Steps then shrink towards the end.
    - `block_size`: coordinates that are worked on at once, which bounds the workspace. An accelerator with memory to
      spare is faster with more.
    - `roles`: what parameters are to their network, where the shape does not say it: a function of a parameter's path,
      such as `"decoder.kernel"`, and its array, that returns `"vector"`, `"matrix"`, `"embedding"`, `"head"`,
      `"convolution"`, or None for what is taken from the shape. With `optax.inject_hyperparams`, name it in the
      `static_args`.

    **Returns:**

    A transformation whose `update` needs the parameters. Arithmetic is float32, and so is the state but for what the
    cell keeps in bfloat16. A step in which any gradient is not finite gives updates of zero and changes no state but
    the count `skipped`.

    Under `jax.jit` with parameters and state donated, a step needs the updates and a block besides. Parameters may be
    shared among devices: state lies where they do, and of a large one nothing is gathered if each device holds whole
    chunks of `CHUNK_LENGTH` consecutive coordinates.
    """
    check_options(lr, weight_decay, total_steps, block_size, roles)
    block = max(block_size // CHUNK_LENGTH, 1) * CHUNK_LENGTH

    def init(params: optax.Params) -> MnemosyneState:
        leaves, given = floating_leaves(params), roles_of(params, roles)
        tensors = sum(1 for leaf in leaves if jnp.size(leaf))

        def before(slot: str) -> Any:
            arrays = [initial(slot, leaf, role) for leaf, role in zip(leaves, given, strict=True)]
            return jax.tree.unflatten(jax.tree.structure(params), arrays)

        return MnemosyneState(
            step=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            memory={slot: before(slot) for slot in MEMORY},
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
        given, shapes = roles_of(params, roles), [jnp.shape(leaf) for leaf in leaves]
        present = [place for place, leaf in enumerate(leaves) if jnp.size(leaf)]
        check_state(state, len(present))
        trees = {"param": leaves, "grad": leaves_like(params, updates, "the gradients", shapes)}
        tensors: Tensors = {
            name: {tensor: jnp.asarray(arrays[place]) for tensor, place in enumerate(present)}
            for name, arrays in trees.items()
        }
        for slot in MEMORY:
            kept = [kept_shape(slot, shape, role) for shape, role in zip(shapes, given, strict=True)]
            arrays = leaves_like(params, state.memory[slot], f"the state's memory {slot!r}", kept)
            trees[f"memory.{slot}"] = arrays
            tensors[f"memory.{slot}"] = {
                tensor: jnp.asarray(arrays[place], kept_dtype(slot))
                for tensor, place in enumerate(present)
                if is_kept(slot, given[place])
            }
        hyper = {
            "clock.step": state.step,
            "clock.total": 0 if total_steps is None else total_steps,
            "hyper.lr": lr(state.step) if callable(lr) else lr,
            "hyper.weight_decay": weight_decay,
        }
        recall = {name: jnp.asarray(value) for name, value in state.recall.items()}
        told = facts([shapes[place] for place in present], [given[place] for place in present])
        tensors, recall, finite = _step(tensors, recall, told, hyper, block)

        def unflatten(name: str, old: Sequence[Any]) -> Any:
            new = {present[tensor]: array for tensor, array in tensors[name].items()}
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


def _step(
    tensors: Tensors, recall: Rows, told: Mapping[str, np.ndarray], hyper: Mapping[str, Any], block: int
) -> tuple[Tensors, Rows, jax.Array]:
    """The tensors with each gradient replaced by its update, the next state, and whether the gradients are finite."""
    count = len(tensors["param"])
    if not count:
        return tensors, recall, jnp.array(True)
    # A gradient's place is where its update goes, so it has to hold what the parameter can.
    dtypes = {tensor: param.dtype for tensor, param in tensors["param"].items()}
    grads = tensors["grad"].items()
    wide = {tensor: grad.astype(jnp.promote_types(grad.dtype, dtypes[tensor])) for tensor, grad in grads}
    tensors = {**tensors, "grad": wide}
    weights = {name: jnp.asarray(value) for name, value in _weights().items()}
    rows: Rows = {f"state.{name}": value for name, value in recall.items()}
    rows.update((name, jnp.asarray(value)) for name, value in told.items())
    for name, value in hyper.items():
        rows[name] = jnp.full(count, jnp.asarray(value, jnp.float32))
    everything, samples = plan(tensors, block)

    def bound(phase: Any) -> Phase:
        return functools.partial(phase, weights)

    def summed(name: str, parts: Sequence[Any]) -> Rows:
        """The rows that a phase gives for parts of the tensors, summed for each tensor."""
        if name not in INPUTS:
            return {}
        totals = [part.summed(bound(getattr(_phases, name)), INPUTS[name], tensors, rows) for part in parts]
        owner = np.concatenate([part.tensors for part in parts])
        return sums({key: jnp.concatenate([total[key] for total in totals]) for key in totals[0]}, owner)

    def of_tensors(name: str) -> Rows:
        return bound(getattr(_phases, name))({key: rows[key] for key in INPUTS[name]}) if name in INPUTS else {}

    moments = summed("measure", everything)
    rows.update(moments)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in moments.values()]))
    rows["guard.finite"] = jnp.full(count, finite.astype(jnp.float32))
    rows.update(summed("encode", samples))
    for name, value in of_tensors("share").items():
        (total,) = sums({name: value}, np.zeros(count, int)).values()
        rows[name] = jnp.broadcast_to(total, value.shape)
    recalled = of_tensors("recall")
    rows.update((name, value) for name, value in recalled.items() if name.startswith("context."))
    recall = {name: recalled[f"state.{name}"] for name in recall}
    rows.update(summed("probe", samples))

    def advance(inputs: Rows) -> Rows:
        outputs = bound(_phases.update)(inputs)
        return {**outputs, "grad": outputs.pop("param") - inputs["param"]}

    for part in everything:
        tensors = part.mapped(advance, INPUTS["update"], tensors, rows)
    updates = {tensor: update.astype(dtypes[tensor]) for tensor, update in tensors["grad"].items()}
    return {**tensors, "grad": updates}, recall, finite
