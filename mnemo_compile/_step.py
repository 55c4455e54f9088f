"""The reference step: what every exported optimizer must compute, straight from the cell."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._layout import Layout
from .cell import AbstractCell, Rows


class OptimizerState(NamedTuple):
    """State of a step over tensors packed into chunks by a `Layout`."""

    memory: dict[str, Float[Array, "chunks length ..."]]
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
    tensors = len(layout.shapes)
    return OptimizerState(
        memory={slot.name: jnp.zeros((*layout.valid.shape, *slot.shape), dtype) for slot in cell.memory_slots},
        recall={
            name: jnp.broadcast_to(value.astype(dtype), (tensors, *value.shape))
            for name, value in cell.initial_state().items()
        },
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
    )


def probe(
    cell: AbstractCell,
    param: Float[Array, "chunks length"],
    grad: Float[Array, "chunks length"],
    memory: Mapping[str, Float[Array, "chunks length ..."]],
    valid: Bool[Array, "chunks length"],
    context: Rows,
) -> dict[str, Float[Array, " chunks"]]:
    """Each chunk's terms of the direction's spread. `context` is that of the chunk's tensor."""
    direction, _ = cell.decode(param, grad, memory, context)
    present = valid.astype(direction.dtype)
    return {"square": jnp.sum(direction * direction * present, axis=1), "count": jnp.sum(present, axis=1)}


def update(
    cell: AbstractCell,
    param: Float[Array, "chunks length"],
    grad: Float[Array, "chunks length"],
    memory: Mapping[str, Float[Array, "chunks length ..."]],
    context: Rows,
    spread: Rows,
    hyper: Rows,
    guard: Rows,
) -> tuple[Float[Array, "chunks length"], dict[str, Float[Array, "chunks length ..."]]]:
    """Next parameters and memory of chunks; every mapping holds what belongs to the chunk's tensor.

    `param − lr (scale · direction + weight_decay · param)` where `guard["finite"]` is 1, and no change where it is 0.
    """
    direction, next_memory = cell.decode(param, grad, memory, context)
    scale = cell.scale(context, spread)[:, None]
    lr, weight_decay = hyper["lr"][:, None], hyper["weight_decay"][:, None]
    next_param = param - lr * (scale * direction + weight_decay * param)
    return (
        guarded(guard, next_param, param),
        {slot: guarded(guard, next_memory[slot], memory[slot]) for slot in memory},
    )


def guarded(guard: Rows, new: Float[Array, "rows ..."], old: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
    """The new rows where the gradients are finite, else the old ones."""
    return jnp.where(guard["finite"].reshape(-1, *(1,) * (new.ndim - 1)) > 0, new, old)


def recall(
    cell: AbstractCell, summary: Rows, moments: Rows, facts: Rows, clock: Rows, state: Rows, guard: Rows
) -> tuple[dict[str, Float[Array, "tensors ..."]], dict[str, Float[Array, "tensors ..."]]]:
    """Context and next state of tensors; the state stays where `guard["finite"]` is 0."""
    context, next_state = cell.recall(summary, moments, facts, clock, state)
    return context, {name: guarded(guard, next_state[name], state[name]) for name in state}


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
    """One step over packed tensors. `total_steps` is the horizon, 0 if it is not known."""
    dtype = param.dtype
    owner = jnp.asarray(layout.owner, dtype)
    tensors = len(layout.shapes)
    facts = {name: jnp.asarray(value, dtype) for name, value in layout.facts.items()}

    def total(rows: Rows, owner: Array) -> dict[str, Array]:
        return {
            name: jnp.einsum("ct,c...->t...", owner, value, precision=jax.lax.Precision.HIGHEST)
            for name, value in rows.items()
        }

    def of_chunks(rows: Rows, owner: Array) -> dict[str, Array]:
        return {
            name: jnp.einsum("ct,t...->c...", owner, value, precision=jax.lax.Precision.HIGHEST)
            for name, value in rows.items()
        }

    def everywhere(value: float | Array) -> Array:
        return jnp.broadcast_to(jnp.asarray(value, dtype), (tensors,))

    moments = total(cell.measure(grad), owner)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in moments.values()]))
    guard = {"finite": everywhere(finite.astype(dtype))}

    sample = layout.sampled
    sample_owner = owner if sample is None else owner[sample]
    sampled_param, sampled_grad, sampled_memory, sampled_valid = jax.tree.map(
        lambda rows: rows if sample is None else rows[sample],
        (param, grad, dict(state.memory), jnp.asarray(layout.valid)),
    )
    encoded = cell.encode(
        sampled_param,
        sampled_grad,
        sampled_memory,
        sampled_valid,
        of_chunks(moments, sample_owner),
        of_chunks(facts, sample_owner),
        of_chunks(state.recall, sample_owner),
    )
    summary = total(encoded, sample_owner)
    clock = {"step": everywhere(state.step.astype(dtype)), "total": everywhere(total_steps)}
    context, next_recall = recall(cell, summary, moments, facts, clock, state.recall, guard)
    spread = total(
        probe(cell, sampled_param, sampled_grad, sampled_memory, sampled_valid, of_chunks(context, sample_owner)),
        sample_owner,
    )
    hyper = {"lr": everywhere(lr), "weight_decay": everywhere(weight_decay)}
    next_param, next_memory = update(
        cell, param, grad, state.memory, *(of_chunks(rows, owner) for rows in (context, spread, hyper, guard))
    )
    counted = finite.astype(jnp.int32)
    return next_param, OptimizerState(next_memory, next_recall, state.step + counted, state.skipped + 1 - counted)
