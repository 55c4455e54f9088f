"""The optimizer: gathers tensors into rows, runs the cell's phases over them, and gives back the updates."""

import functools
import itertools
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import load_file

from . import _phases
from ._checks import check_gradients, check_options, check_state, floating_leaves, leaves_like
from ._devices import device
from ._layout import Layout, MemorySlot
from ._partition import partition
from ._phases import CHUNK_LENGTH, INPUTS, MEMORY, SAMPLE_CHUNKS, STATE, TILE
from ._plan import CARRIED, group_of, Phase, PLAN
from ._products import Precision, products_in
from ._roles import Description
from ._rows import Function, Rows, Tensors
from ._sums import sums
from ._tensors import descriptions_of, initial, names_of, Roles, slot_dtype, slot_shape

_log = logging.getLogger(__name__)


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
    step_sizes: jax.Array
    """What each tensor's direction was multiplied with in the last step that was taken, to be logged.

    It has a number per tensor, in the order of the tree's leaves without empty ones. Entries of directions are about 1
    where gradients agree from step to step. It is empty if the cell does not say its step sizes.
    """


_SIZE = "context.step"
"""The name of a step size, in cells that say it."""


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    return load_file(pathlib.Path(__file__).with_name("weights.safetensors"))


def mnemosyne(
    lr: float | jax.Array | Callable[[jax.Array], Any] = 1.0,
    weight_decay: float | jax.Array = 0.0,
    total_steps: int | jax.Array | None = None,
    block_size: int | None = None,
    roles: Roles | None = None,
    pretrained: bool | jax.Array | None = None,
    precision: Precision = "bfloat16",
) -> optax.GradientTransformationExtraArgs:
    """A learned optimizer. Its step size is part of what it has learned, so there is no learning rate to find.

    **Arguments:**

    - `lr`: multiplies the step; a number or a schedule, called with the number of steps taken.
    - `weight_decay`: decoupled, with AdamW's meaning at AdamW's customary rate. A step also takes
      `lr * 0.001 * schedule * weight_decay * parameter` off a parameter, where `schedule` is the cell's warm-up and
      annealing. So a `weight_decay=0.01` that was chosen for `optax.adamw` does here what it does there.
    - `total_steps`: the number of steps of the training, if it is known. Steps then shrink towards the end.
    - `block_size`: the number of coordinates in a block, which bounds the workspace. None takes 262,144 on a CPU, whose
      caches hold that, and 4,194,304 on an accelerator, which is idle between smaller blocks.
    - `roles`: the roles of parameters in their network: `"vector"`, `"matrix"`, `"embedding"`, `"head"`,
      `"convolution"`, or None for the role that follows from the parameter's name and shape. It is a tree like the
      parameters', or a function of a parameter's path, such as `"decoder.kernel"`, and its array. With
      `optax.inject_hyperparams`, name a function in the `static_args`.
    - `pretrained`: whether the network is pretrained. Then steps are smaller. None leaves it to the optimizer, which
      looks at the parameters in the first step.
    - `precision`: that of the products of matrices on an accelerator, whatever the precision that JAX is set to:
      `"bfloat16"`, `"tf32"` or `"float32"`. Their inputs are rounded to it, and they are summed in float32. On a CPU
      they are always float32.

    **Returns:**

    A transformation whose `update` needs the parameters. All other arithmetic is float32, or float64 where it meets
    parameters of float64. The state is float32, except for slots of bfloat16. A step in which any gradient is not
    finite gives updates of zero and changes no state except the count `skipped`.

    Under `jax.jit` with parameters and state donated, a step needs memory for the updates and one block.
    Parameters may be sharded, and the state is sharded like them. A large parameter is not gathered if it is sharded
    along its first axis and each device holds whole chunks of `CHUNK_LENGTH` coordinates and whole tiles.
    """
    check_options(
        lr=lr,
        weight_decay=weight_decay,
        total_steps=total_steps,
        block_size=block_size,
        pretrained=pretrained,
        precision=precision,
    )

    def init(params: optax.Params) -> MnemosyneState:
        leaves, descriptions = floating_leaves(params), descriptions_of(params, roles)
        tensors = sum(1 for leaf in leaves if jnp.size(leaf))
        _log_ambiguous(names_of(params), descriptions)

        def before(slot: MemorySlot) -> Any:
            arrays = [initial(slot, leaf, each.role) for leaf, each in zip(leaves, descriptions, strict=True)]
            return jax.tree.unflatten(jax.tree.structure(params), arrays)

        return MnemosyneState(
            step=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            memory={slot.name: before(slot) for slot in MEMORY},
            recall={
                name: jnp.tile(_weights()[f"initial.{name}"], (tensors, *(1 for _ in shape)))
                for name, shape in STATE.items()
            },
            step_sizes=jnp.zeros(tensors if _says_sizes() else 0, jnp.float32),
        )

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, MnemosyneState]:
        del extra_args
        if params is None:
            raise ValueError("mnemosyne needs the parameters: call update(grads, state, params)")
        leaves = floating_leaves(params)
        descriptions, shapes = descriptions_of(params, roles), [jnp.shape(leaf) for leaf in leaves]
        places = [place for place, leaf in enumerate(leaves) if jnp.size(leaf)]
        check_state(state, len(places))
        grads = leaves_like(params, updates, "the gradients", shapes)
        check_gradients(updates)
        trees = {"param": leaves, "grad": grads}
        tensors: Tensors = {
            name: {tensor: jnp.asarray(arrays[place]) for tensor, place in enumerate(places)}
            for name, arrays in trees.items()
        }
        for slot in MEMORY:
            slot_shapes = [slot_shape(slot, shape, each.role) for shape, each in zip(shapes, descriptions, strict=True)]
            arrays = leaves_like(params, state.memory[slot.name], f"the state's memory {slot.name!r}", slot_shapes)
            trees[f"memory.{slot.name}"] = arrays
            tensors[f"memory.{slot.name}"] = {
                tensor: jnp.asarray(arrays[place], slot_dtype(slot))
                for tensor, place in enumerate(places)
                if slot.applies_to(descriptions[place].role)
            }
        numbers = {
            "clock.step": state.step,
            "clock.total": 0 if total_steps is None else total_steps,
            "hyper.lr": lr(state.step) if callable(lr) else lr,
            "hyper.weight_decay": weight_decay,
            "hyper.pretrained": -1 if pretrained is None else pretrained,
        }
        rows: Rows = {name: jnp.full(len(places), jnp.asarray(value, jnp.float32)) for name, value in numbers.items()}
        rows.update((f"state.{name}", jnp.asarray(value)) for name, value in state.recall.items())
        present = tuple(descriptions[place] for place in places)
        layout = Layout(tuple(shapes[place] for place in places), CHUNK_LENGTH, SAMPLE_CHUNKS, TILE, present)
        with products_in(precision):
            tensors, next_state, sizes, finite = _step(layout, tensors, rows, _block(block_size))

        def unflatten(name: str, old: Sequence[Any]) -> Any:
            new = {places[tensor]: array for tensor, array in tensors[name].items()}
            arrays = [new.get(place, value) for place, value in enumerate(old)]
            return jax.tree.unflatten(jax.tree.structure(params), arrays)

        increment = finite.astype(jnp.int32)
        return unflatten("grad", [jnp.zeros_like(leaf) for leaf in leaves]), MnemosyneState(
            step=state.step + increment,
            skipped=state.skipped + 1 - increment,
            memory={slot.name: unflatten(f"memory.{slot.name}", trees[f"memory.{slot.name}"]) for slot in MEMORY},
            recall={
                name: next_state[f"state.{name}"].astype(value.dtype) if next_state else value
                for name, value in state.recall.items()
            },
            step_sizes=jnp.where(finite, sizes, state.step_sizes),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _block(block_size: int | None) -> int:
    """Coordinates of a block, in whole chunks."""
    return max((block_size or device().block) // CHUNK_LENGTH, 1) * CHUNK_LENGTH


def _log_ambiguous(names: Sequence[str], descriptions: Sequence[Description]) -> None:
    ambiguous = [name for name, each in zip(names, descriptions, strict=True) if each.reason == "ambiguous"]
    if ambiguous:
        _log.warning(
            "neither name nor shape says which matrices these parameters hold: %s; unless roles gives them a role, "
            "their updates are elementwise",
            ", ".join(ambiguous),
        )


def _says_sizes() -> bool:
    return any(_SIZE in names for names in INPUTS.values())


def _step(layout: Layout, tensors: Tensors, rows: Rows, block: int) -> tuple[Tensors, Rows, jax.Array, jax.Array]:
    """Runs every phase of the plan, in order.

    **Arguments:**

    - `layout`: that of the tensors that have coordinates.
    - `tensors`: their parameters, gradients and memory.
    - `rows`: numbers of the time and of the user's options, and the state of `recall`.
    - `block`: the number of coordinates in a block.

    **Returns:**

    The tensors with each gradient replaced by its update, the next state, the step sizes, and whether the gradients are
    finite.
    """
    count, finite = len(layout.shapes), jnp.array(True)
    if not count:
        return tensors, {}, jnp.zeros(0, jnp.float32), finite
    # Updates overwrite gradients, so a gradient needs a dtype that can hold the parameter's numbers.
    dtypes = {tensor: param.dtype for tensor, param in tensors["param"].items()}
    grads = tensors["grad"].items()
    wide = {tensor: grad.astype(jnp.promote_types(grad.dtype, dtypes[tensor])) for tensor, grad in grads}
    shape = {f"shape.{name}": jnp.asarray(value) for name, value in layout.shape_rows.items()}
    rows = {**rows, **shape}
    runner = _Runner(layout, {**tensors, "grad": wide}, rows, block)
    next_state: Rows = {}
    for phases in _runs():
        outputs = runner.run(phases)
        if phases[0].decides:
            finite &= jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in outputs.values()]))
            rows["finite"] = jnp.full(count, finite.astype(jnp.float32))
        next_state.update((name, value) for name, value in outputs.items() if group_of(name) in CARRIED)
        rows.update((name, value) for name, value in outputs.items() if group_of(name) not in CARRIED)
    updates = {tensor: update.astype(dtypes[tensor]) for tensor, update in runner.tensors["grad"].items()}
    sizes = rows[_SIZE] * rows["hyper.lr"] if _SIZE in rows else jnp.zeros(0)
    return {**runner.tensors, "grad": updates}, next_state, sizes.astype(jnp.float32), finite


def _runs() -> list[tuple[Phase, ...]]:
    """The phases of this cell that run together: consecutive ones over tiles, and each other one by itself."""
    phases = [phase for phase in PLAN if phase.name in INPUTS]
    together = itertools.groupby(phases, key=lambda phase: "" if phase.rows == "tiles" else phase.name)
    return [tuple(run) for _, run in together]


class _Runner:
    """Runs phases over tensors."""

    def __init__(self, layout: Layout, tensors: Tensors, rows: Rows, block: int):
        self.tensors = tensors
        self.rows = rows
        self.weights = {name: jnp.asarray(value) for name, value in _weights().items()}
        self.parts = partition(layout, tensors, block)

    def run(self, phases: Sequence[Phase]) -> Rows:
        """Runs phases together. Returns outputs with a row per tensor; others replace the inputs of their names."""
        first, (*before, last) = phases[0], [self._function(phase) for phase in phases]
        names = _inputs(phases)
        if first.rows == "tensors":
            outputs = last(self.rows)
            return _network_sums(outputs) if first.reduce == "network" else outputs
        if first.reduce == "tensor":
            return self._sums(self.parts.samples if first.rows == "sample" else self.parts.chunks, last, names)

        def advance(inputs: Rows) -> Rows:
            outputs = {name: value for name, value in last(inputs).items() if group_of(name) in CARRIED}
            return {**outputs, "grad": outputs.pop("param") - inputs["param"]}

        for part in self.parts.tiles if first.rows == "tiles" else self.parts.elementwise:
            self.tensors = part.mapped([*before, advance], names, self.tensors, self.rows)
        return {}

    def _function(self, phase: Phase) -> Function:
        function = getattr(_phases, phase.name)
        return lambda inputs: function(self.weights, {name: inputs[name] for name in INPUTS[phase.name]})

    def _sums(self, parts: Sequence[Any], function: Function, names: Sequence[str]) -> Rows:
        """The outputs of a phase for all parts, summed for each tensor."""
        totals = [part.summed(function, names, self.tensors, self.rows) for part in parts]
        owner = np.concatenate([part.tensors for part in parts])
        return sums({key: jnp.concatenate([total[key] for total in totals]) for key in totals[0]}, owner)


def _inputs(phases: Sequence[Phase]) -> list[str]:
    """What phases that run together read, without what they give each other."""
    inner = {group for phase in phases for group in phase.gives if group not in CARRIED}
    names = [name for phase in phases for name in INPUTS[phase.name] if group_of(name) not in inner]
    return [*dict.fromkeys(names)]


def _network_sums(terms: Rows) -> Rows:
    """Sums over all tensors, the same in every row."""
    outputs: Rows = {}
    for name, value in terms.items():
        (total,) = sums({name: value}, np.zeros(value.shape[0], int)).values()
        outputs[name] = jnp.broadcast_to(total, value.shape)
    return outputs
