"""The reference step: what every exported optimizer must compute, straight from the cell."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..cell import AbstractCell
from ._layout import Layout, MemorySlot, tile_slots
from ._phases import composition as composition, phases_of as phases_of, run_phase as run_phase
from ._plan import CARRIED, OF_PARTS, Phase
from ._roles import describe
from ._tiles import cut, join


class OptimizerState(NamedTuple):
    """State of a step over tensors packed into chunks by a `Layout`.

    A slot of bfloat16 is stored here in the dtype of the arithmetic, rounded to numbers that bfloat16 can represent.
    """

    memory: dict[str, Float[Array, "chunks ..."]]
    recall: dict[str, Float[Array, "tensors ..."]]
    step: Int[Array, ""]
    """Steps taken."""
    skipped: Int[Array, ""]
    """Steps refused because a gradient was not finite."""


def layout_of(cell: AbstractCell, shapes: Sequence[Sequence[int]], names: Sequence[str] | None = None) -> Layout:
    """How a cell lays out tensors of these shapes and names. Roles follow from the shapes if there are no names."""
    descriptions = None
    if names is not None:
        descriptions = tuple(describe(shape, name=name) for shape, name in zip(shapes, names, strict=True))
    return Layout(tuple(map(tuple, shapes)), cell.chunk_length, cell.sample_chunks, cell.tile, descriptions)


def pack(layout: Layout, tensors: Sequence[Float[Array, "..."]]) -> Float[Array, "chunks length"]:
    """Tensors as rows of chunks, padded with zeros."""
    return jnp.concatenate([_to_chunks(layout, tensor, place) for place, tensor in enumerate(tensors)])


def unpack(layout: Layout, rows: Float[Array, "chunks length"]) -> list[Float[Array, "..."]]:
    """The tensors in rows of chunks."""
    return [_tensor(layout, rows, place) for place in range(len(layout.shapes))]


def _to_chunks(layout: Layout, tensor: Float[Array, "..."], place: int) -> Float[Array, "chunks length"]:
    """The tensor of this place as rows of chunks."""
    run = layout.runs[place]
    padded = jnp.pad(tensor.reshape(-1, run), ((0, 0), (0, -run % layout.chunk_length)))
    return padded.reshape(-1, layout.chunk_length)


def _tensor(layout: Layout, rows: Float[Array, "chunks length"], place: int) -> Float[Array, "..."]:
    """The tensor of this place in rows of chunks."""
    run, (first, end) = layout.runs[place], layout.starts[place : place + 2]
    return rows[first:end].reshape(layout.sizes[place] // run, -1)[:, :run].reshape(layout.shapes[place])


def init(cell: AbstractCell, layout: Layout, dtype: jnp.dtype | type = jnp.float32) -> OptimizerState:
    """The state before the first step."""
    chunks, tensors = len(layout.valid), len(layout.shapes)
    return OptimizerState(
        memory={
            slot.name: jnp.zeros((chunks, *slot.row_shape(layout.chunk_length)), dtype) for slot in cell.memory_slots
        },
        recall={
            name: jnp.broadcast_to(value.astype(dtype), (tensors, *value.shape))
            for name, value in cell.initial_state().items()
        },
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
    )


def step(
    cell: AbstractCell,
    layout: Layout,
    param: Float[Array, "chunks length"],
    grad: Float[Array, "chunks length"],
    state: OptimizerState,
    *,
    lr: float | Float[Array, ""] = 1.0,
    weight_decay: float | Float[Array, ""] = 0.0,
    total_steps: float | Float[Array, ""] = 0.0,
    pretrained: float | Float[Array, ""] = -1.0,
) -> tuple[Float[Array, "chunks length"], OptimizerState]:
    """One step over packed tensors.

    `total_steps` is the horizon, 0 if it is unknown. `pretrained` is 1 or 0, or -1 if the first step tells.
    """
    rows = _Rows(layout, param.dtype)
    finite = jnp.array(True)
    # The same numbers; what is not finite has no derivative.
    grad = jnp.where(jnp.isfinite(grad), grad, jax.lax.stop_gradient(grad))
    groups: dict[str, Any] = {
        "param": param,
        "grad": grad,
        "memory": dict(state.memory),
        "valid": jnp.asarray(layout.valid),
        "shape": {name: jnp.asarray(value, param.dtype) for name, value in layout.shape_rows.items()},
        "clock": {"step": rows.of_all(state.step), "total": rows.of_all(total_steps)},
        "hyper": {
            "lr": rows.of_all(lr),
            "weight_decay": rows.of_all(weight_decay),
            "pretrained": rows.of_all(pretrained),
        },
        "state": state.recall,
    }
    slots = tile_slots(cell.memory_slots)
    tiles = [_Tiles(layout, places, groups, slots) for places in layout.tile_groups.values()]
    next_param, next_memory, next_state = param, dict(state.memory), state.recall
    for phase in phases_of(cell):
        if phase.rows == "tiles":
            for part in tiles:
                part.arrays.update(run_phase(cell, phase.name, part.inputs(phase, groups)))
            continue
        kind = "elementwise" if phase.rows == "chunks" and phase.reduce is None else phase.rows
        inputs = {name: rows.select(kind, name, groups[name]) for name in phase.reads if name in groups}
        outputs = run_phase(cell, phase.name, inputs)
        if phase.reduce == "tensor":
            outputs = {name: rows.sum(kind, value) for name, value in outputs.items()}
        elif phase.reduce == "network":
            outputs = jax.tree.map(
                lambda value: jnp.broadcast_to(jnp.sum(value, axis=0, keepdims=True), value.shape), outputs
            )
        if phase.decides:
            finite &= jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in jax.tree.leaves(outputs)]))
            groups["finite"] = rows.of_all(finite)
            # A refused step changes nothing. It is computed from zeros, so that its derivative is finite.
            outputs = jax.tree.map(lambda value: jnp.where(finite, value, 0), outputs)
            for arrays in (groups, *(part.arrays for part in tiles)):
                arrays["grad"] = jnp.where(finite, arrays["grad"], 0)
        if kind == "elementwise":
            next_param, next_memory = rows.placed((next_param, next_memory), (outputs["param"], outputs["memory"]))
        next_state = outputs.get("state", next_state)
        groups.update((name, value) for name, value in outputs.items() if name not in CARRIED)
    for part in tiles:
        next_param = part.placed(next_param, part.arrays["param"])
        for name, value in part.arrays["memory"].items():
            next_memory[name] = part.placed(next_memory[name], value)
    increment = finite.astype(jnp.int32)
    return next_param, OptimizerState(next_memory, next_state, state.step + increment, state.skipped + 1 - increment)


class _Rows:
    """Rows of a layout: chunks, those of tensors without tiles, the sample of chunks, and tensors."""

    def __init__(self, layout: Layout, dtype: jnp.dtype):
        self.dtype = dtype
        self.tensors = len(layout.shapes)
        has_tiles = len(layout.elementwise) < len(layout.valid)
        self.indices = {
            "chunks": None,
            "elementwise": layout.elementwise if has_tiles else None,
            "sample": layout.sampled,
        }
        owner = jnp.asarray(layout.owner, dtype)
        self.owners = {kind: owner if places is None else owner[places] for kind, places in self.indices.items()}

    def of_all(self, value: float | Array) -> Float[Array, " tensors"]:
        """A number for each tensor, the same for all."""
        return jnp.broadcast_to(jnp.asarray(value, self.dtype), (self.tensors,))

    def select(self, kind: str, group: str, values: Any) -> Any:
        """The values of a group in rows of this kind."""
        if kind == "tensors":
            return values
        if group not in OF_PARTS:
            return self._contract("ct,t...->c...", self.owners[kind], values)
        places = self.indices[kind]
        return values if places is None else jax.tree.map(lambda rows: rows[places], values)

    def placed(self, values: Any, new: Any) -> Any:
        """The values with those of tensors without tiles replaced."""
        places = self.indices["elementwise"]
        return new if places is None else jax.tree.map(lambda old, rows: old.at[places].set(rows), values, new)

    def sum(self, kind: str, values: Any) -> Any:
        """Rows of chunks, summed for each tensor."""
        return self._contract("ct,c...->t...", self.owners[kind], values)

    def _contract(self, subscripts: str, owner: Array, values: Any) -> Any:
        highest = jax.lax.Precision.HIGHEST
        return jax.tree.map(lambda rows: jnp.einsum(subscripts, owner, rows, precision=highest), values)


class _Tiles:
    """The tiles of one shape, from the tensors of these places."""

    def __init__(self, layout: Layout, places: list[int], groups: dict[str, Any], slots: Sequence[MemorySlot]):
        self.layout = layout
        self.places = places
        tilings = [layout.matrices[place][1] for place in places]
        self.owner = np.repeat(places, [tiling.count for tiling in tilings])
        """The tensor of each tile."""
        sides = np.concatenate([tiling.sides() for tiling in tilings])
        self.arrays: dict[str, Any] = {
            "param": self._cut(groups["param"]),
            "grad": self._cut(groups["grad"]),
            "memory": {slot.name: self._cut(groups["memory"][slot.name]) for slot in slots},
            "tile": {"side": jnp.asarray(sides, groups["param"].dtype)},
        }
        """Groups with a row per tile, by the names of the plan."""

    def inputs(self, phase: Phase, groups: dict[str, Any]) -> dict[str, Any]:
        """What a phase reads, with a row per tile."""
        return {
            name: self.arrays[name] if name in OF_PARTS else jax.tree.map(lambda rows: rows[self.owner], groups[name])
            for name in phase.reads
        }

    def placed(self, rows: Array, tiles: Array) -> Array:
        """Rows of chunks with the numbers of these tiles."""
        start = 0
        for place in self.places:
            axes, tiling = self.layout.matrices[place]
            tensor = join(tiles[start : start + tiling.count], self.layout.shapes[place], axes, tiling)
            chunks = slice(self.layout.starts[place], self.layout.starts[place + 1])
            rows = rows.at[chunks].set(_to_chunks(self.layout, tensor, place))
            start += tiling.count
        return rows

    def _cut(self, rows: Array) -> Array:
        return jnp.concatenate(
            [cut(_tensor(self.layout, rows, place), *self.layout.matrices[place]) for place in self.places]
        )
