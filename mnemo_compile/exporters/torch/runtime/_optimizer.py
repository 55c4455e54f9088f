"""The optimizer as torch knows it: parameter groups, state, and a step."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor

from ._phases import DIGEST, IN_BFLOAT16, KEPT_BY, MEMORY, NAME, OF_CHUNKS, POINTWISE, ROLES, STATE, VERSION
from ._rows import chunks_of, plan, role_of
from ._step import initial_state, Step, weights

_CELL = {"name": NAME, "version": VERSION, "digest": DIGEST}
_KEPT = (*MEMORY, *(["recall"] if STATE else []))
"""What is kept of a parameter: memory of its coordinates and chunks, and the state of `recall` as one vector."""


class Mnemosyne(torch.optim.Optimizer):
    """A learned optimizer. Its step size is part of what it has learned, so there is no learning rate to find.

    **Arguments:**

    - `params`: parameters, named parameters or groups of them, of any floating dtype. Arithmetic and state are float32
        (float64 for float64 parameters).
    - `lr`: multiplies the step; for schedulers and for groups that should move less.
    - `weight_decay`: decoupled; a step moves a parameter by `-lr * weight_decay * parameter` besides.
    - `total_steps`: how many steps will be taken, if that is known. Steps then shrink towards the end.
    - `block_size`: coordinates that are worked on at once, which bounds the workspace.
    - `compile`: whether large tensors are worked on by compiled functions. The first step then takes long.

    What a parameter is to its network is told by its shape, or by its group: with `"role": "head"`, say, in a group's
    dictionary. Roles are vector, matrix, embedding, head and convolution.

    A step in which any gradient is not finite changes no parameter and no state; `skipped_steps` counts them.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1.0,
        weight_decay: float = 0.0,
        total_steps: int | None = None,
        block_size: int = 65536,
        compile: bool = False,
    ):
        if not isinstance(block_size, int) or block_size < 1:
            raise ValueError(f"block_size counts coordinates and must be a positive integer, not {block_size!r}")
        if not isinstance(params, Tensor):
            params = list(params)
            if not params:
                raise ValueError("there are no parameters to train; pass the parameters of a model that has some")
        self._block_size = block_size
        self._compile = compile
        defaults = {"lr": lr, "weight_decay": weight_decay, "total_steps": total_steps, "role": None, "cell": _CELL}
        super().__init__(params, defaults)
        clock = self.param_groups[0]
        device = clock["params"][0].device if clock["params"] else torch.device("cpu")
        for name in ("step", "skipped"):
            clock.setdefault(name, torch.zeros((), dtype=torch.int64, device=device))

    @property
    def skipped_steps(self) -> int:
        """Steps refused because a gradient was not finite. Reading it waits for the device."""
        return int(self.param_groups[0]["skipped"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; `lr`, `weight_decay` and `total_steps` may be its own."""
        super().add_param_group(param_group)
        try:
            _check_group(self.param_groups[-1], len(self.param_groups) - 1)
        except ValueError:
            self.param_groups.pop()
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` saved, exactly, whatever the dtype and device of the parameters."""
        _check_cell(state_dict["param_groups"])
        pairs = [
            (param, state_dict["state"].get(name, {}), saved, f"parameter {place} of group {number}")
            for number, (saved, group) in enumerate(zip(state_dict["param_groups"], self.param_groups, strict=False))
            for place, (name, param) in enumerate(zip(saved["params"], group["params"], strict=False))
        ]
        for param, state, saved, where in pairs:
            _check_state(state, param, _role(param, saved), where)
        super().load_state_dict(state_dict)
        for param, state, _, _ in pairs:
            # The base class has cast the state to the parameters' dtype.
            for name, value in state.items():
                kept = torch.empty(value.shape, dtype=_kept_dtype(name, param.dtype), device=param.device)
                self.state[param][name] = kept.copy_(value)
        clock = self.param_groups[0]
        for name in ("step", "skipped"):
            clock[name] = clock[name].to(clock["params"][0].device)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_block_size": self._block_size, "_compile": self._compile}

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Takes one step with the gradients that the parameters hold, or that `closure` computes."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        steps = self._steps()
        if not steps:
            return loss
        clock = self.param_groups[0]
        step, skipped = clock["step"], clock["skipped"]
        options = {
            "lr": [group["lr"] for group in self.param_groups],
            "weight_decay": [group["weight_decay"] for group in self.param_groups],
            "total": [group["total_steps"] or 0.0 for group in self.param_groups],
        }
        attended = [each.attend(step, options) for each in steps]
        finite = torch.stack([is_finite.to(step.device) for is_finite, _ in attended]).all()
        network = {name: [shares[name] for _, shares in attended] for name in attended[0][1]}
        for each in steps:
            each.update(finite, network)
        step.add_(finite)
        skipped.add_(~finite)
        return loss

    def _steps(self) -> list[Step]:
        """A step for each device, dtype of arithmetic and kind of state, over the parameters that have a gradient."""
        params: list[Tensor] = []
        grads: list[Tensor] = []
        kept: list[list[Tensor]] = [[] for _ in _KEPT]
        groups: list[int] = []
        for number, group in enumerate(self.param_groups):
            # Empty lists each time: only those does `torch.compile` fill by calling the method.
            of_group: list[list[Tensor]] = [[] for _ in (params, grads, *kept)]
            self._init_group(group, *of_group)
            for values, more in zip((params, grads, *kept), of_group, strict=True):
                values.extend(more)
            groups.extend([number] * len(of_group[0]))
        roles = [_role(param, self.param_groups[number]) for param, number in zip(params, groups, strict=True)]
        buckets: dict[tuple[torch.device, torch.dtype, tuple[str, ...]], list[int]] = {}
        for place, param in enumerate(params):
            bucket = (param.device, _work_dtype(param.dtype), _slots(roles[place]))
            buckets.setdefault(bucket, []).append(place)
        compiled = self._compile or torch.compiler.is_compiling()
        steps = []
        for (device, dtype, slots), places in buckets.items():
            shapes = tuple(tuple(params[place].shape) for place in places)
            numbers = tuple(groups[place] for place in places)
            states = {name: [values[i] for i in places] for name, values in zip(_KEPT, kept, strict=True)}
            tensors = {"param": [params[i] for i in places], "grad": [grads[i] for i in places]}
            tensors.update((f"memory.{slot}", states[slot]) for slot in slots)
            named = tuple(roles[place] for place in places)
            cut = plan(shapes, named, numbers, self._block_size, compiled and POINTWISE, device, dtype)
            steps.append(Step(cut, tensors, states.get("recall", []), device, dtype, compiled))
        return steps

    def _init_group(
        self, group: Mapping[str, Any], params: list[Tensor], grads: list[Tensor], *kept: list[Tensor]
    ) -> None:
        """Adds a group's parameters that have a gradient to the lists, and makes their state where there is none.

        `torch.compile` knows this method of an optimizer by its name and calls it instead of tracing it.
        """
        for place, param in enumerate(group["params"]):
            if param.grad is None or param.numel() == 0:
                continue
            if param.grad.layout is not torch.strided:
                number = next(i for i, each in enumerate(self.param_groups) if each is group)
                raise RuntimeError(
                    f"the gradient of parameter {place} of group {number}, shape {tuple(param.shape)}, is sparse, "
                    f"which {type(self).__name__} cannot use; make it dense (sparse=False for an embedding)"
                )
            state = self.state[param]
            dtype = _work_dtype(param.dtype)
            # Read here, because the rest of a step may be traced.
            weights(param.device, dtype)
            if not state:
                for slot in _slots(_role(param, group)):
                    shape = _shape(slot, param)
                    state[slot] = torch.zeros(shape, dtype=_kept_dtype(slot, param.dtype), device=param.device)
                state.update(initial_state(param.device, dtype))
            params.append(param)
            grads.append(param.grad)
            for values, name in zip(kept, _KEPT, strict=True):
                # What is not kept is not looked at.
                values.append(state.get(name, param))


def _role(param: Tensor, group: Mapping[str, Any]) -> str:
    return group.get("role") or role_of(tuple(param.shape))


def _slots(role: str) -> tuple[str, ...]:
    """The memory that a parameter of this role keeps."""
    return tuple(slot for slot in MEMORY if role in KEPT_BY.get(slot, ROLES))


def _shape(name: str, param: Tensor) -> tuple[int, ...]:
    """Of what is kept of a parameter."""
    if name == "recall":
        return (sum(map(math.prod, STATE.values())),)
    whose = (chunks_of(param.numel()),) if name in OF_CHUNKS else tuple(param.shape)
    return (*whose, *MEMORY[name])


def _kept_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if name in IN_BFLOAT16 else _work_dtype(dtype)


def _work_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _check_group(group: Mapping[str, Any], number: int) -> None:
    for name in ("lr", "weight_decay"):
        value = group[name]
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise ValueError(f"{name} of group {number} must be one number, not a tensor of {value.numel()}")
            # Of a tensor elsewhere one would have to wait for the device.
            value = value.item() if value.is_cpu else 0.0
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} of group {number} must be a finite number of at least 0, not {group[name]!r}")
    total = group["total_steps"]
    if total is not None and (not isinstance(total, int) or isinstance(total, bool) or total < 1):
        raise ValueError(
            f"total_steps of group {number} must be a positive integer, or None where the end is not known, "
            f"not {total!r}"
        )
    if group["role"] is not None and group["role"] not in ROLES:
        raise ValueError(
            f"role of group {number} must be one of {', '.join(ROLES)}, or None for that of the shape, "
            f"not {group['role']!r}"
        )
    for place, param in enumerate(group["params"]):
        if not param.is_floating_point():
            raise ValueError(
                f"parameter {place} of group {number} has dtype {param.dtype}, and only floating-point parameters can "
                "be trained; leave it out or convert it"
            )


def _check_cell(groups: Iterable[Mapping[str, Any]]) -> None:
    for number, group in enumerate(groups):
        cell = group.get("cell")
        if not isinstance(cell, Mapping) or cell.get("digest") != DIGEST:
            saved = _title(cell) if isinstance(cell, Mapping) else "another optimizer"
            raise ValueError(
                f"group {number} of this state was saved by {saved}, and this is {_title(_CELL)}; load it into the "
                "optimizer that saved it"
            )


def _title(cell: Mapping[str, Any]) -> str:
    return f"{cell.get('name')} {cell.get('version')} (digest {str(cell.get('digest'))[:12]})"


def _check_state(state: Mapping[str, Any], param: Tensor, role: str, where: str) -> None:
    kept = {*_slots(role), *(["recall"] if STATE else [])}
    if state and state.keys() != kept:
        raise ValueError(
            f"the state of {where} holds {', '.join(sorted(map(str, state)))} where {', '.join(sorted(kept))} is "
            f"kept; load it into the optimizer that saved it"
        )
    for name, value in state.items():
        shape = _shape(name, param)
        if tuple(value.shape) != shape:
            raise ValueError(
                f"{name} of {where} has shape {tuple(value.shape)} in this state where {shape} is needed; load it for "
                "the parameters that it was saved for"
            )
