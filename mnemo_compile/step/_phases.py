"""What each phase of the plan computes from a cell: a function from groups of rows to groups of rows."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..cell import AbstractCell, Chunks, Composition, has_role, OPTIONAL, Tensors, Tiles
from ._plan import Phase, PLAN
from ._polar import polar
from ._rounding import dithered, thresholds

Groups = Mapping[str, Any]
"""The groups by the names in the plan. A group is one array, such as `param`, or named arrays, such as `memory`."""


def phases_of(cell: AbstractCell) -> tuple[Phase, ...]:
    """The phases of the plan that a cell has."""
    own = cell.phases()
    return tuple(phase for phase in PLAN if _has(cell, phase, own))


def _has(cell: AbstractCell, phase: Phase, own: frozenset[str]) -> bool:
    if phase.rows == "tiles":
        return cell.tile > 0
    return phase.name not in OPTIONAL or phase.name in own


def run_phase(cell: AbstractCell, name: str, groups: Groups) -> dict[str, Any]:
    """The outputs of a phase.

    **Arguments:**

    - `cell`: the cell.
    - `name`: the name of a phase in the plan.
    - `groups`: the groups that the phase reads. A group in which the cell has no arrays may be missing.
    """
    return _FUNCTIONS[name](cell, groups)


def _chunks(groups: Groups) -> Chunks:
    return Chunks(groups["param"], groups["grad"], groups.get("memory", {}), groups["valid"])


def _tensors(groups: Groups) -> Tensors:
    return Tensors(**{field.name: groups.get(field.name, {}) for field in dataclasses.fields(Tensors)})


def _measure(cell: AbstractCell, groups: Groups) -> dict[str, Any]:
    return {"moments": cell.measure(groups["param"], groups["grad"])}


def _encode(cell: Any, groups: Groups) -> dict[str, Any]:
    return {"summary": cell.encode(_chunks(groups), _tensors(groups))}


def _share(cell: Any, groups: Groups) -> dict[str, Any]:
    return {"network": cell.share(_tensors(groups))}


def _recall(cell: Any, groups: Groups) -> dict[str, Any]:
    """The state stays as it is where the step is refused."""
    context, state = cell.recall(_tensors(groups))
    before, finite = groups.get("state", {}), groups["finite"]
    return {"context": context, "state": {name: _where_finite(finite, state[name], before[name]) for name in before}}


def _update(cell: AbstractCell, groups: Groups) -> dict[str, Any]:
    """The next parameter and memory of chunks; no change in a refused step."""
    direction, memory = cell.decode(_chunks(groups), groups.get("context", {}))
    step, rounded = groups["clock"]["step"], {}
    for place, slot in enumerate(cell.memory_slots):
        rows = memory[slot.name]
        if slot.dtype == "bfloat16":
            rows = dithered(rows, thresholds(rows.shape[1:], step, place))
        if slot.roles is not None:
            rows = _where_rows(has_role(groups["shape"]["role"], slot.roles), rows, 0.0)
        rounded[slot.name] = rows
    return _next(cell, groups, direction, rounded)


def _orthogonalise(cell: Any, groups: Groups) -> dict[str, Any]:
    """The polar factor of each tile, with a mean square of 1 where the tile has full rank."""
    factor = polar(composition(cell, groups).matrix)
    return {"direction": jnp.sqrt(groups["tile"]["side"])[:, None, None] * factor}


def _update_tiles(cell: Any, groups: Groups) -> dict[str, Any]:
    """The next parameter and memory of tiles; no change in a refused step."""
    made = composition(cell, groups)
    step, rounded = groups["clock"]["step"], {}
    for place, slot in enumerate(cell.memory_slots):
        if slot.name in made.memory:
            rows = made.memory[slot.name]
            if slot.dtype == "bfloat16":
                # All places of a tile share a threshold, because a tile's sizes are free.
                rows = dithered(rows, thresholds((), step, place)[:, None, None])
            rounded[slot.name] = rows
    return _next(cell, groups, made.scale[:, None, None] * groups["direction"], rounded)


def composition(cell: Any, groups: Groups) -> Composition:
    """What the direction of tiles is made of; the phases over tiles share it."""
    return cell.compose(Tiles(groups["grad"], groups.get("memory", {})), groups["context"])


def _next(
    cell: AbstractCell, groups: Groups, direction: Float[Array, "rows ..."], memory: dict[str, Any]
) -> dict[str, Any]:
    """`param − lr (direction + decay · weight_decay · param)` and the memory, or what was before a refused step."""
    param, finite, hyper, before = groups["param"], groups["finite"], groups["hyper"], groups.get("memory", {})
    decay = cell.decay(groups.get("context", {}), groups["clock"]) * hyper["weight_decay"]
    next_param = param - _beside(hyper["lr"], param) * (direction + _beside(decay, param) * param)
    return {
        "param": _where_finite(finite, next_param, param),
        "memory": {name: _where_finite(finite, memory[name], before[name]) for name in memory},
    }


_FUNCTIONS: dict[str, Callable[[AbstractCell, Groups], dict[str, Any]]] = {
    "measure": _measure,
    "encode": _encode,
    "share": _share,
    "recall": _recall,
    "update": _update,
    "orthogonalise": _orthogonalise,
    "update_tiles": _update_tiles,
}


def _where_rows(
    condition: Bool[Array, " rows"], rows: Float[Array, "rows ..."], others: Float[Array, "rows ..."] | float
) -> Float[Array, "rows ..."]:
    return jnp.where(_beside(condition, rows), rows, others)


def _beside(values: Array, rows: Array) -> Array:
    """A number per row, with axes of size 1 for those of the rows."""
    return values.reshape(-1, *(1,) * (rows.ndim - 1))


def _where_finite(
    finite: Float[Array, " rows"], new: Float[Array, "rows ..."], old: Float[Array, "rows ..."]
) -> Float[Array, "rows ..."]:
    """The new rows where the step is taken, else the old ones."""
    return _where_rows(finite > 0, new, old)
