"""The optimizer: gathers tensors into rows of chunks, runs the cell's phases over them, and gives back the updates."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import load_file

from . import _phases
from ._checks import check_options, check_state, floating_leaves, leaves_like
from ._layout import MemorySlot
from ._packs import Pack
from ._partition import partition
from ._phases import CHUNK_LENGTH, INPUTS, MEMORY, STATE
from ._plan import CARRIED, group_of, Phase, PLAN
from ._rows import Rows, Tensors
from ._samples import Sample
from ._sums import sums
from ._sweeps import Sweep
from ._tensors import Chooser, initial, roles_of, shape_rows, slot_dtype, slot_shape


class MnemosyneState(NamedTuple):
    """State of the transformation."""

    step: jax.Array
    """Steps taken."""
    skipped: jax.Array
    """Steps refused because a gradient was not finite."""
    memory: dict[str, Any]
    """For each slot a tree like the parameters', in float32 or bfloat16.

    An array has the parameter's axes and then the slot's. For a slot per chunk it has one axis of chunks instead of the
    parameter's axes. Where a parameter lacks the slot it has the shape `(0,)`.
    """
    recall: dict[str, jax.Array]
    """The state of `recall`, with a row per tensor in the order of the tree's leaves. Empty tensors have no row."""


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
    - `weight_decay`: decoupled; a step also adds `-lr * weight_decay * parameter` to a parameter.
    - `total_steps`: the number of steps of the training, if it is known. Steps then shrink towards the end.
    - `block_size`: the number of coordinates in a block, which bounds the workspace. Larger blocks are faster on an
      accelerator with enough memory.
    - `roles`: chooses the roles of parameters in their network. It is a function of a parameter's path, such as
      `"decoder.kernel"`, and its array. It returns `"vector"`, `"matrix"`, `"embedding"`, `"head"`,
      `"convolution"`, or None for the role that follows from the shape. With `optax.inject_hyperparams`, name it in the
      `static_args`.

    **Returns:**

    A transformation whose `update` needs the parameters. Arithmetic is float32, and so is the state, except for slots
    of bfloat16. A step in which any gradient is not finite gives updates of zero and changes no state
    except the count `skipped`.

    Under `jax.jit` with parameters and state donated, a step needs memory for the updates and one block.
    Parameters may be sharded, and the state is sharded like them. A large parameter is not gathered if each device
    holds whole chunks of `CHUNK_LENGTH` consecutive coordinates.
    """
    check_options(lr, weight_decay, total_steps, block_size, roles)
    block = max(block_size // CHUNK_LENGTH, 1) * CHUNK_LENGTH

    def init(params: optax.Params) -> MnemosyneState:
        leaves, leaf_roles = floating_leaves(params), roles_of(params, roles)
        tensors = sum(1 for leaf in leaves if jnp.size(leaf))

        def before(slot: MemorySlot) -> Any:
            arrays = [initial(slot, leaf, role) for leaf, role in zip(leaves, leaf_roles, strict=True)]
            return jax.tree.unflatten(jax.tree.structure(params), arrays)

        return MnemosyneState(
            step=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            memory={slot.name: before(slot) for slot in MEMORY},
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
        leaf_roles, shapes = roles_of(params, roles), [jnp.shape(leaf) for leaf in leaves]
        places = [place for place, leaf in enumerate(leaves) if jnp.size(leaf)]
        check_state(state, len(places))
        trees = {"param": leaves, "grad": leaves_like(params, updates, "the gradients", shapes)}
        tensors: Tensors = {
            name: {tensor: jnp.asarray(arrays[place]) for tensor, place in enumerate(places)}
            for name, arrays in trees.items()
        }
        for slot in MEMORY:
            slot_shapes = [slot_shape(slot, shape, role) for shape, role in zip(shapes, leaf_roles, strict=True)]
            arrays = leaves_like(params, state.memory[slot.name], f"the state's memory {slot.name!r}", slot_shapes)
            trees[f"memory.{slot.name}"] = arrays
            tensors[f"memory.{slot.name}"] = {
                tensor: jnp.asarray(arrays[place], slot_dtype(slot))
                for tensor, place in enumerate(places)
                if slot.applies_to(leaf_roles[place])
            }
        numbers = {
            "clock.step": state.step,
            "clock.total": 0 if total_steps is None else total_steps,
            "hyper.lr": lr(state.step) if callable(lr) else lr,
            "hyper.weight_decay": weight_decay,
        }
        rows: Rows = {name: jnp.full(len(places), jnp.asarray(value, jnp.float32)) for name, value in numbers.items()}
        shape = shape_rows([shapes[place] for place in places], [leaf_roles[place] for place in places])
        rows.update((name, jnp.asarray(value)) for name, value in shape.items())
        rows.update((f"state.{name}", jnp.asarray(value)) for name, value in state.recall.items())
        tensors, next_state, finite = _step(tensors, rows, block)

        def unflatten(name: str, old: Sequence[Any]) -> Any:
            new = {places[tensor]: array for tensor, array in tensors[name].items()}
            arrays = [new.get(place, value) for place, value in enumerate(old)]
            return jax.tree.unflatten(jax.tree.structure(params), arrays)

        increment = finite.astype(jnp.int32)
        return unflatten("grad", [jnp.zeros_like(leaf) for leaf in leaves]), MnemosyneState(
            step=state.step + increment,
            skipped=state.skipped + 1 - increment,
            memory={slot.name: unflatten(f"memory.{slot.name}", trees[f"memory.{slot.name}"]) for slot in MEMORY},
            recall={name: next_state[f"state.{name}"] for name in state.recall} if next_state else dict(state.recall),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _step(tensors: Tensors, rows: Rows, block: int) -> tuple[Tensors, Rows, jax.Array]:
    """Runs every phase of the plan, in order.

    **Arguments:**

    - `tensors`: parameters, gradients and memory of tensors that have coordinates.
    - `rows`: numbers of the shapes, of the time and of the user's options, and the state of `recall`.
    - `block`: the number of coordinates in a block.

    **Returns:**

    The tensors with each gradient replaced by its update, the next state, and whether the gradients are finite.
    """
    count, finite = len(tensors["param"]), jnp.array(True)
    if not count:
        return tensors, {}, finite
    # Updates overwrite gradients, so a gradient needs a dtype that can hold the parameter's numbers.
    dtypes = {tensor: param.dtype for tensor, param in tensors["param"].items()}
    grads = tensors["grad"].items()
    wide = {tensor: grad.astype(jnp.promote_types(grad.dtype, dtypes[tensor])) for tensor, grad in grads}
    runner = _Runner({**tensors, "grad": wide}, rows, block)
    next_state: Rows = {}
    for phase in PLAN:
        if phase.name not in INPUTS:
            continue
        outputs = runner.run(phase)
        if phase.decides:
            finite &= jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in outputs.values()]))
            rows["finite"] = jnp.full(count, finite.astype(jnp.float32))
        next_state.update((name, value) for name, value in outputs.items() if group_of(name) in CARRIED)
        rows.update((name, value) for name, value in outputs.items() if group_of(name) not in CARRIED)
    updates = {tensor: update.astype(dtypes[tensor]) for tensor, update in runner.tensors["grad"].items()}
    return {**runner.tensors, "grad": updates}, next_state, finite


class _Runner:
    """Runs phases over tensors."""

    def __init__(self, tensors: Tensors, rows: Rows, block: int):
        self.tensors = tensors
        self.rows = rows
        self.weights = {name: jnp.asarray(value) for name, value in _weights().items()}
        self.everything, self.samples = partition(tensors, block)

    def run(self, phase: Phase) -> Rows:
        """Runs a phase. Returns outputs with a row per tensor; outputs per coordinate replace their inputs."""
        function = functools.partial(getattr(_phases, phase.name), self.weights)
        if phase.rows == "tensors":
            outputs = function({name: self.rows[name] for name in INPUTS[phase.name]})
            return _network_sums(outputs) if phase.reduce == "network" else outputs
        if phase.reduce == "tensor":
            return self._sums(phase, function)

        def advance(inputs: Rows) -> Rows:
            outputs = function(inputs)
            return {**outputs, "grad": outputs.pop("param") - inputs["param"]}

        for part in self.everything:
            self.tensors = part.mapped(advance, INPUTS[phase.name], self.tensors, self.rows)
        return {}

    def _sums(self, phase: Phase, function: Callable[[Rows], Rows]) -> Rows:
        """The outputs of a phase for all parts, summed for each tensor."""
        parts: Sequence[Sweep | Pack | Sample] = self.samples if phase.rows == "sample" else self.everything
        totals = [part.summed(function, INPUTS[phase.name], self.tensors, self.rows) for part in parts]
        owner = np.concatenate([part.tensors for part in parts])
        return sums({key: jnp.concatenate([total[key] for total in totals]) for key in totals[0]}, owner)


def _network_sums(terms: Rows) -> Rows:
    """Sums over all tensors, the same in every row."""
    outputs: Rows = {}
    for name, value in terms.items():
        (total,) = sums({name: value}, np.zeros(value.shape[0], int)).values()
        outputs[name] = jnp.broadcast_to(total, value.shape)
    return outputs
