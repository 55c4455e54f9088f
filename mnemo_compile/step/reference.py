"""The reference step: what every exported optimizer must compute, straight from the cell."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..cell import AbstractCell
from ._layout import Layout
from ._phases import decode, phases_of as phases_of, run_phase as run_phase
from ._plan import CARRIED, OF_CHUNKS


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


def pack(layout: Layout, tensors: Sequence[Float[Array, "..."]]) -> Float[Array, "chunks length"]:
    """Tensors as rows of chunks, padded with zeros."""
    rows = [
        jnp.pad(tensor.reshape(-1), (0, chunks * layout.chunk_length - size)).reshape(chunks, layout.chunk_length)
        for tensor, size, chunks in zip(tensors, layout.sizes, layout.chunks, strict=True)
    ]
    return jnp.concatenate(rows)


def unpack(layout: Layout, rows: Float[Array, "chunks length"]) -> list[Float[Array, "..."]]:
    """The tensors in rows of chunks."""
    tensors, start = [], 0
    for shape, size, chunks in zip(layout.shapes, layout.sizes, layout.chunks, strict=True):
        tensors.append(rows[start : start + chunks].reshape(-1)[:size].reshape(shape))
        start += chunks
    return tensors


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
) -> tuple[Float[Array, "chunks length"], OptimizerState]:
    """One step over packed tensors. `total_steps` is the horizon, 0 if it is unknown."""
    rows = _Rows(layout, param.dtype)
    finite = jnp.array(True)
    groups: dict[str, Any] = {
        "param": param,
        "grad": grad,
        "memory": dict(state.memory),
        "valid": jnp.asarray(layout.valid),
        "shape": {name: jnp.asarray(value, param.dtype) for name, value in layout.shape_rows.items()},
        "clock": {"step": rows.of_all(state.step), "total": rows.of_all(total_steps)},
        "hyper": {"lr": rows.of_all(lr), "weight_decay": rows.of_all(weight_decay)},
        "state": state.recall,
    }
    next_groups: dict[str, Any] = {"memory": state.memory, "state": state.recall}
    views: dict[tuple[str, str], Any] = {}

    def view(kind: str, name: str) -> Any:
        """A group in the form that phases over rows of this kind read."""
        if (kind, name) not in views:
            views[kind, name] = rows.select(kind, name, groups[name])
        return views[kind, name]

    decoded = None
    for phase in phases_of(cell):
        inputs = {name: view(phase.rows, name) for name in phase.reads if name in groups}
        if "context" in phase.reads:
            # All chunks are in memory here, so `probe` and `update` can use the same call of `decode`.
            chunk_groups = {name: view("chunks", name) for name in (*OF_CHUNKS, "context") if name in groups}
            decoded = decoded or decode(cell, chunk_groups)
            inputs["decoded"] = rows.select(phase.rows, "memory", decoded)
        outputs = run_phase(cell, phase.name, inputs)
        if phase.reduce == "tensor":
            outputs = {name: rows.sum(phase.rows, value) for name, value in outputs.items()}
        elif phase.reduce == "network":
            outputs = jax.tree.map(
                lambda value: jnp.broadcast_to(jnp.sum(value, axis=0, keepdims=True), value.shape), outputs
            )
        if phase.decides:
            finite &= jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in jax.tree.leaves(outputs)]))
            groups["finite"] = rows.of_all(finite)
        next_groups.update((name, value) for name, value in outputs.items() if name in CARRIED)
        groups.update((name, value) for name, value in outputs.items() if name not in CARRIED)
    increment = finite.astype(jnp.int32)
    return next_groups["param"], OptimizerState(
        next_groups["memory"], next_groups["state"], state.step + increment, state.skipped + 1 - increment
    )


class _Rows:
    """Rows of a layout: chunks, the sample of chunks, and tensors."""

    def __init__(self, layout: Layout, dtype: jnp.dtype):
        self.dtype = dtype
        self.tensors = len(layout.shapes)
        self.sample = layout.sampled
        owner = jnp.asarray(layout.owner, dtype)
        self.owners = {"chunks": owner, "sample": owner if self.sample is None else owner[self.sample]}

    def of_all(self, value: float | Array) -> Float[Array, " tensors"]:
        """A number for each tensor, the same for all."""
        return jnp.broadcast_to(jnp.asarray(value, self.dtype), (self.tensors,))

    def select(self, kind: str, group: str, values: Any) -> Any:
        """The values of a group in rows of this kind."""
        if kind == "tensors":
            return values
        if group not in OF_CHUNKS:
            return self._contract("ct,t...->c...", self.owners[kind], values)
        if kind == "sample" and self.sample is not None:
            return jax.tree.map(lambda rows: rows[self.sample], values)
        return values

    def sum(self, kind: str, values: Any) -> Any:
        """Rows of chunks, summed for each tensor."""
        return self._contract("ct,c...->t...", self.owners[kind], values)

    def _contract(self, subscripts: str, owner: Array, values: Any) -> Any:
        highest = jax.lax.Precision.HIGHEST
        return jax.tree.map(lambda rows: jnp.einsum(subscripts, owner, rows, precision=highest), values)
