"""What each phase of the plan computes from a cell: a function from groups of rows to groups of rows."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..cell import AbstractCell, Chunks, OPTIONAL, Tensors
from ._plan import Phase, PLAN
from ._roles import Role, ROLES
from ._rounding import dithered, thresholds

Groups = Mapping[str, Any]
"""The groups by the names in the plan. A group is one array, such as `param`, or named arrays, such as `memory`."""


def phases_of(cell: AbstractCell) -> tuple[Phase, ...]:
    """The phases of the plan that a cell has."""
    own = cell.phases()
    return tuple(phase for phase in PLAN if phase.name not in OPTIONAL or phase.name in own)


def run_phase(cell: AbstractCell, name: str, groups: Groups) -> dict[str, Any]:
    """The outputs of a phase.

    **Arguments:**

    - `cell`: the cell.
    - `name`: the name of a phase in the plan.
    - `groups`: the groups that the phase reads. A group in which the cell has no arrays may be missing. If `decoded`
      holds the result of the cell's `decode` for these chunks, `probe` and `update` do not compute it again.
    """
    return _FUNCTIONS[name](cell, groups)


def _chunks(groups: Groups) -> Chunks:
    return Chunks(groups["param"], groups["grad"], groups.get("memory", {}), groups["valid"])


def _tensors(groups: Groups) -> Tensors:
    return Tensors(**{field.name: groups.get(field.name, {}) for field in dataclasses.fields(Tensors)})


def _measure(cell: AbstractCell, groups: Groups) -> dict[str, Any]:
    return {"moments": cell.measure(groups["grad"])}


def _encode(cell: Any, groups: Groups) -> dict[str, Any]:
    return {"summary": cell.encode(_chunks(groups), _tensors(groups))}


def _share(cell: Any, groups: Groups) -> dict[str, Any]:
    return {"network": cell.share(_tensors(groups))}


def _recall(cell: Any, groups: Groups) -> dict[str, Any]:
    """The state stays as it is where the step is refused."""
    context, state = cell.recall(_tensors(groups))
    before, finite = groups.get("state", {}), groups["finite"]
    return {"context": context, "state": {name: _where_finite(finite, state[name], before[name]) for name in before}}


def decode(cell: AbstractCell, groups: Groups) -> tuple[Float[Array, "chunks length"], dict[str, Array]]:
    """Direction and next memory of chunks, the part that `probe` and `update` share."""
    return groups["decoded"] if "decoded" in groups else cell.decode(_chunks(groups), groups.get("context", {}))


def _probe(cell: AbstractCell, groups: Groups) -> dict[str, Any]:
    """Sums over the direction's valid coordinates."""
    direction, _ = decode(cell, groups)
    mask = groups["valid"].astype(direction.dtype)
    square, count = jnp.sum(direction * direction * mask, axis=1), jnp.sum(mask, axis=1)
    return {"direction": {"square": square, "count": count}}


def _update(cell: AbstractCell, groups: Groups) -> dict[str, Any]:
    """`param − lr (scale · direction + weight_decay · param)` and the next memory; no change in a refused step."""
    param, finite, before = groups["param"], groups["finite"], groups.get("memory", {})
    direction, memory = decode(cell, groups)
    for place, slot in enumerate(cell.memory_slots):
        rows = memory[slot.name]
        if slot.dtype == "bfloat16":
            rows = dithered(rows, thresholds(rows, groups["clock"]["step"], place))
        if slot.roles is not None:
            rows = _where_rows(_has_role(groups["shape"]["role"], slot.roles), rows, 0.0)
        memory = {**memory, slot.name: rows}
    scale = cell.scale(groups.get("context", {}), groups["direction"])[:, None]
    lr, weight_decay = groups["hyper"]["lr"][:, None], groups["hyper"]["weight_decay"][:, None]
    next_param = param - lr * (scale * direction + weight_decay * param)
    return {
        "param": _where_finite(finite, next_param, param),
        "memory": {name: _where_finite(finite, memory[name], before[name]) for name in before},
    }


_FUNCTIONS: dict[str, Callable[[AbstractCell, Groups], dict[str, Any]]] = {
    "measure": _measure,
    "encode": _encode,
    "share": _share,
    "recall": _recall,
    "probe": _probe,
    "update": _update,
}


def _has_role(role: Float[Array, " rows"], roles: Sequence[Role]) -> Bool[Array, " rows"]:
    return functools.reduce(jnp.logical_or, [role == ROLES.index(each) for each in roles], jnp.zeros(role.shape, bool))


def _where_rows(
    condition: Bool[Array, " rows"], rows: Float[Array, "rows ..."], others: Float[Array, "rows ..."] | float
) -> Float[Array, "rows ..."]:
    return jnp.where(condition.reshape(-1, *(1,) * (rows.ndim - 1)), rows, others)


def _where_finite(
    finite: Float[Array, " rows"], new: Float[Array, "rows ..."], old: Float[Array, "rows ..."]
) -> Float[Array, "rows ..."]:
    """The new rows where the step is taken, else the old ones."""
    return _where_rows(finite > 0, new, old)
