"""The reference step: what every exported optimizer must compute, straight from the cell."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..cell import AbstractCell, Rows
from ._layout import Layout, Role, ROLES


class OptimizerState(NamedTuple):
    """State of a step over tensors packed into chunks by a `Layout`.

    What is kept in bfloat16 is here in the dtype of the arithmetic, with numbers that bfloat16 has.
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


_RANKS = {"coordinate": 2, "chunk": 1}
"""Axes of a slot's rows that say whose it is."""


def init(cell: AbstractCell, layout: Layout, dtype: jnp.dtype | type = jnp.float32) -> OptimizerState:
    """The state before the first step."""
    tensors = len(layout.shapes)
    return OptimizerState(
        memory={
            slot.name: jnp.zeros((*layout.valid.shape[: _RANKS[slot.level]], *slot.shape), dtype)
            for slot in cell.memory_slots
        },
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
    memory: Mapping[str, Float[Array, "chunks ..."]],
    valid: Bool[Array, "chunks length"],
    context: Rows,
) -> dict[str, Float[Array, " chunks"]]:
    """Each chunk's terms of the direction's spread. `context` is that of the chunk's tensor."""
    direction, _ = cell.decode(param, grad, memory, valid, context)
    return _spread(direction, valid)


def _spread(direction: Float[Array, "chunks length"], valid: Bool[Array, "chunks length"]) -> dict[str, Array]:
    present = valid.astype(direction.dtype)
    return {"square": jnp.sum(direction * direction * present, axis=1), "count": jnp.sum(present, axis=1)}


def update(
    cell: AbstractCell,
    param: Float[Array, "chunks length"],
    grad: Float[Array, "chunks length"],
    memory: Mapping[str, Float[Array, "chunks ..."]],
    valid: Bool[Array, "chunks length"],
    context: Rows,
    spread: Rows,
    facts: Rows,
    clock: Rows,
    hyper: Rows,
    guard: Rows,
    *,
    decoded: tuple[Float[Array, "chunks length"], dict[str, Float[Array, "chunks ..."]]] | None = None,
) -> tuple[Float[Array, "chunks length"], dict[str, Float[Array, "chunks ..."]]]:
    """Next parameters and memory of chunks; every mapping holds what belongs to the chunk's tensor.

    `param − lr (scale · direction + weight_decay · param)` where `guard["finite"]` is 1, and no change where it is 0.
    `decoded` is what `decode` gives of these chunks, where it is known already.
    """
    direction, next_memory = cell.decode(param, grad, memory, valid, context) if decoded is None else decoded
    for place, slot in enumerate(cell.memory_slots):
        if slot.dtype == "bfloat16":
            kept = next_memory[slot.name]
            next_memory = {**next_memory, slot.name: dithered(kept, _thresholds(kept, clock["step"], place))}
        if slot.roles is not None:
            keeps = _is_among(facts["role"], slot.roles)
            next_memory = {**next_memory, slot.name: _where_rows(keeps, next_memory[slot.name], 0.0)}
    scale = cell.scale(context, spread)[:, None]
    lr, weight_decay = hyper["lr"][:, None], hyper["weight_decay"][:, None]
    next_param = param - lr * (scale * direction + weight_decay * param)
    return (
        guarded(guard, next_param, param),
        {slot: guarded(guard, next_memory[slot], memory[slot]) for slot in memory},
    )


_LEVELS = 256
"""Thresholds that a step rounds by, in turns: so many that the mean over as many steps is right to 2⁻¹⁶."""


def _thresholds(
    kept: Float[Array, "chunks ..."], step: Float[Array, " chunks"], slot: int
) -> Float[Array, "chunks ..."]:
    """A number in (0, 1) for each that a slot keeps: at any place each of `_LEVELS` once in as many steps.

    A lattice whose neighbours, in place and in time, are far apart. All of it is exact in float32.
    """
    inner = kept.shape[1:]
    place = np.arange(math.prod(inner)).reshape(1, *inner) * 157 + slot * 41
    turn = 97 * (step - _LEVELS * jnp.floor(step * (1 / _LEVELS)))
    total = jnp.asarray(place % _LEVELS, step.dtype) + turn.reshape(-1, *(1 for _ in inner))
    return (total - _LEVELS * jnp.floor(total * (1 / _LEVELS)) + 0.5) * (1 / _LEVELS)


def dithered(x: Float[Array, "*shape"], threshold: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x rounded to one of its neighbours in bfloat16: not to the nearest one where the threshold is low.

    With thresholds that are evenly spread in (0, 1), the mean of the results is x. A number that bfloat16 has stays.
    """
    nearest = _to_bfloat16(x)
    # 5/1024 of a number is between a half and one and a half times the distance to its neighbours.
    other = _to_bfloat16(nearest + jnp.sign(x - nearest) * jnp.abs(nearest) * (5 / 1024))
    return jnp.where(threshold * jnp.abs(other - nearest) < jnp.abs(x - nearest), other, nearest)


def _to_bfloat16(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    # A conversion there and back is what a compiler may leave out.
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def _is_among(role: Float[Array, " rows"], roles: Sequence[Role]) -> Bool[Array, " rows"]:
    """Whether the role is one of these."""
    return functools.reduce(jnp.logical_or, [role == ROLES.index(each) for each in roles], jnp.zeros(role.shape, bool))


def _where_rows(
    which: Bool[Array, " rows"], rows: Float[Array, "rows ..."], others: Float[Array, "rows ..."] | float
) -> Float[Array, "rows ..."]:
    return jnp.where(which.reshape(-1, *(1,) * (rows.ndim - 1)), rows, others)


def guarded(guard: Rows, new: Float[Array, "rows ..."], old: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
    """The new rows where the gradients are finite, else the old ones."""
    return _where_rows(guard["finite"] > 0, new, old)


def recall(
    cell: AbstractCell,
    summary: Rows,
    network: Rows,
    moments: Rows,
    facts: Rows,
    clock: Rows,
    state: Rows,
    guard: Rows,
) -> tuple[dict[str, Float[Array, "tensors ..."]], dict[str, Float[Array, "tensors ..."]]]:
    """Context and next state of tensors; the state stays where `guard["finite"]` is 0."""
    context, next_state = cell.recall(summary, network, moments, facts, clock, state)
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
    shared = cell.share(summary, moments, facts, clock, state.recall)
    network = {
        name: jnp.broadcast_to(jnp.sum(value, axis=0, keepdims=True), value.shape) for name, value in shared.items()
    }
    context, next_recall = recall(cell, summary, network, moments, facts, clock, state.recall, guard)
    hyper = {"lr": everywhere(lr), "weight_decay": everywhere(weight_decay)}
    of_each = of_chunks(context, owner)
    # Here all chunks are at hand, so that `probe` and `update` can share what they decode.
    valid = jnp.asarray(layout.valid)
    decoded = cell.decode(param, grad, state.memory, valid, of_each)
    direction = decoded[0] if sample is None else decoded[0][sample]
    spread = total(_spread(direction, sampled_valid), sample_owner)
    next_param, next_memory = update(
        cell,
        param,
        grad,
        state.memory,
        valid,
        of_each,
        *(of_chunks(rows, owner) for rows in (spread, facts, clock, hyper, guard)),
        decoded=decoded,
    )
    counted = finite.astype(jnp.int32)
    return next_param, OptimizerState(next_memory, next_recall, state.step + counted, state.skipped + 1 - counted)
