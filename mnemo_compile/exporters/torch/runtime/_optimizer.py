"""The subclass of `torch.optim.Optimizer`: parameter groups, state, and a step."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor

from ._partition import Facts, Partition, partition
from ._phases import CHUNK_LENGTH, DIGEST, MEMORY, NAME, POINTWISE, STATE, TILE, VERSION
from ._precision import Precision, precision_of, PRECISIONS
from ._roles import describe, Description, ROLES
from ._step import Bucket, initial_state, take_step, weights

_CELL = {"name": NAME, "version": VERSION, "digest": DIGEST}
_SLOTS = {slot.name: slot for slot in MEMORY}
_PRETRAINED = {None: -1.0, False: 0.0, True: 1.0}
"""The number that a cell receives for each answer."""
_LOGGER = logging.getLogger(__name__)
_KEYS = (*_SLOTS, *(["recall"] if STATE else []))
"""Keys of a parameter's state: its memory slots, and the state of `recall` as one vector."""


class Mnemosyne(torch.optim.Optimizer):
    """A learned optimizer. Its step size is part of what it has learned, so there is no learning rate to find.

    **Arguments:**

    - `params`: parameters, named parameters or groups of them, of any floating dtype. Arithmetic and state are float32
        (float64 for float64 parameters). Pass `model.named_parameters()`, so that roles follow from names.
    - `lr`: multiplies the step; for schedulers and for groups that should move less.
    - `weight_decay`: decoupled, as in AdamW at its customary learning rate of 1e-3: a step takes
        `lr * weight_decay * 1e-3 * schedule` off a parameter, as a fraction of it. The schedule falls from 1 towards
        the end.
    - `total_steps`: the number of steps of the training, if it is known. Steps then shrink towards the end.
    - `pretrained`: whether the parameters have been trained before. Steps are then smaller. None leaves it to what the
        first step sees of the parameters.
    - `block_size`: the number of coordinates in a block, which bounds the workspace.
    - `compile`: whether compiled functions update large tensors. The first step then takes long.
    - `precision`: of the factors of the matrix products that make a matrix's direction, `"bfloat16"`, `"tf32"` or
        `"float32"`. Sums are float32. None takes float32 on a CPU and bfloat16 on a GPU. Products of float64 parameters
        are float64.

    The role of a parameter in its network follows from its group's `role`, such as `"role": "head"`, else from its
    name, else from its shape. Roles are vector, matrix, embedding, head and convolution.

    A step in which any gradient is not finite changes no parameter and no state; `skipped_steps` counts them.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1.0,
        weight_decay: float = 0.0,
        total_steps: int | None = None,
        pretrained: bool | None = None,
        block_size: int = 131072,
        compile: bool = False,
        precision: Precision | None = None,
    ):
        if not isinstance(block_size, int) or block_size < 1:
            raise ValueError(f"block_size counts coordinates and must be a positive integer, not {block_size!r}")
        if precision is not None and precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, or None for the device's default, not {precision!r}"
            )
        if not isinstance(params, Tensor):
            params = list(params)
            if not params:
                raise ValueError("there are no parameters to train; pass the parameters of a model that has some")
        self._block_size = block_size
        self._compile = compile
        self._precision: Precision | None = precision
        self._cuts: list[tuple[torch.device, torch.dtype, tuple[int, ...], Partition]] = []
        """For each device and dtype of arithmetic, the places of its parameters in the lists of a step, and the parts.
        """
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "total_steps": total_steps,
            "pretrained": pretrained,
            "role": None,
            "cell": _CELL,
        }
        super().__init__(params, defaults)
        clock = self.param_groups[0]
        device = clock["params"][0].device if clock["params"] else torch.device("cpu")
        for name in ("step", "skipped"):
            clock.setdefault(name, torch.zeros((), dtype=torch.int64, device=device))
        _log_ambiguous(self.param_groups)

    @property
    def skipped_steps(self) -> int:
        """Steps refused because a gradient was not finite. Reading it waits for the device."""
        return int(self.param_groups[0]["skipped"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, which may have its own `lr`, `weight_decay`, `total_steps`, `pretrained` and `role`."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check_group(group, len(self.param_groups) - 1)
        except ValueError:
            self.param_groups.pop()
            raise
        if "step" in self.param_groups[0]:
            _log_ambiguous([group])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` saved, exactly, whatever the dtype and device of the parameters."""
        _check_cell(state_dict["param_groups"])
        pairs = [
            # Names come with the saved group, or are those that the parameters have here.
            (
                param,
                state_dict["state"].get(name, {}),
                _describe({**group, **saved}, place, param),
                _where(number, place),
            )
            for number, (saved, group) in enumerate(zip(state_dict["param_groups"], self.param_groups, strict=False))
            for place, (name, param) in enumerate(zip(saved["params"], group["params"], strict=False))
        ]
        for param, state, description, where in pairs:
            _check_state(state, param, description.role, where)
        super().load_state_dict(state_dict)
        for param, state, _, _ in pairs:
            # The base class has cast the state to the parameters' dtype.
            for name, value in state.items():
                array = torch.empty(value.shape, dtype=_state_dtype(name, param.dtype), device=param.device)
                self.state[param][name] = array.copy_(value)
        clock = self.param_groups[0]
        for name in ("step", "skipped"):
            clock[name] = clock[name].to(clock["params"][0].device)

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("_block_size", "_compile", "_precision")}
        return {**super().__getstate__(), **own}

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
        buckets = self._buckets()
        if buckets:
            clock = self.param_groups[0]
            options: dict[str, list[float | Tensor]] = {
                "hyper.lr": [group["lr"] for group in self.param_groups],
                "hyper.weight_decay": [group["weight_decay"] for group in self.param_groups],
                "hyper.pretrained": [_PRETRAINED[group["pretrained"]] for group in self.param_groups],
                "clock.total": [group["total_steps"] or 0.0 for group in self.param_groups],
            }
            finite = take_step(buckets, clock["step"], options)
            clock["step"].add_(finite)
            clock["skipped"].add_(~finite)
        return loss

    def _buckets(self) -> list[Bucket]:
        """The parameters that have a gradient, by device and dtype of arithmetic."""
        params: list[Tensor] = []
        grads: list[Tensor] = []
        states: list[list[Tensor]] = [[] for _ in _KEYS]
        compiled = self._compile or torch.compiler.is_compiling()
        self._init_group(compiled and POINTWISE, params, grads, *states)
        buckets = []
        for device, dtype, places, parts in self._cuts:
            arrays = {name: [values[i] for i in places] for name, values in zip(_KEYS, states, strict=True)}
            tensors = {"param": [params[i] for i in places], "grad": [grads[i] for i in places]}
            tensors.update((f"memory.{slot}", arrays[slot]) for slot in _SLOTS)
            precision = precision_of(self._precision, device, dtype)
            buckets.append(Bucket(parts, tensors, arrays.get("recall", []), device, dtype, precision, compiled))
        return buckets

    def _init_group(self, whole: bool, params: list[Tensor], grads: list[Tensor], *states: list[Tensor]) -> None:
        """Adds the parameters that have a gradient to the lists, makes their state where there is none, and cuts them.

        `torch.compile` knows this method of an optimizer by its name and calls it instead of tracing it. It fills
        tensors into empty lists, and reads what the method stores in the optimizer.
        """
        facts: dict[tuple[torch.device, torch.dtype], list[tuple[int, Facts]]] = {}
        for number, group in enumerate(self.param_groups):
            for place, param in enumerate(group["params"]):
                grad = param.grad
                if grad is None or param.numel() == 0:
                    continue
                state = self._initialized(group, number, place)
                fact = Facts(tuple(param.shape), _name(group, place), group["role"], number)
                facts.setdefault((param.device, _work_dtype(param.dtype)), []).append((len(params), fact))
                params.append(param)
                grads.append(grad)
                for values, name in zip(states, _KEYS, strict=True):
                    # A slot that the parameter lacks is never read; the parameter only fills its place.
                    values.append(state[name] if name in state else param)
        self._cuts = []
        for (device, dtype), placed in facts.items():
            places, own = zip(*placed, strict=True)
            self._cuts.append((device, dtype, places, partition(own, self._block_size, whole, device, dtype)))

    def _initialized(self, group: Mapping[str, Any], number: int, place: int) -> dict[str, Tensor]:
        """The state of a parameter, which is made if there is none."""
        param = group["params"][place]
        if param.grad.layout is not torch.strided:
            raise RuntimeError(
                f"the gradient of {_where(number, place)}, shape {tuple(param.shape)}, is sparse, "
                f"which {type(self).__name__} cannot use; make it dense (sparse=False for an embedding)"
            )
        state = self.state[param]
        dtype = _work_dtype(param.dtype)
        # The weights are read here, because the rest of a step may be traced.
        weights(param.device, dtype)
        if not state:
            for slot in _slot_names(_describe(group, place, param).role):
                shape = _shape(slot, param)
                state[slot] = torch.zeros(shape, dtype=_state_dtype(slot, param.dtype), device=param.device)
            state.update(initial_state(param.device, dtype))
        return state


def _name(group: Mapping[str, Any], place: int) -> str:
    """The name of a parameter, if the optimizer was made from named ones."""
    names = group.get("param_names")
    return names[place] if names else ""


def _describe(group: Mapping[str, Any], place: int, param: Tensor) -> Description:
    return describe(tuple(param.shape), name=_name(group, place), label=group["role"])


def _where(group: int, place: int) -> str:
    return f"parameter {place} of group {group}"


def _log_ambiguous(groups: Iterable[Mapping[str, Any]]) -> None:
    """One line that lists the parameters whose role neither name nor shape tells."""
    ambiguous = [
        f"{_name(group, place)} {tuple(param.shape)}".lstrip()
        for group in groups
        for place, param in enumerate(group["params"])
        if TILE and _describe(group, place, param).reason == "ambiguous"
    ]
    if ambiguous:
        _LOGGER.warning(
            "the update of these parameters is elementwise, because neither name nor shape tells how they are "
            "matrices; a group's role may say so: %s",
            ", ".join(ambiguous),
        )


def _slot_names(role: str) -> tuple[str, ...]:
    """The memory slots of a parameter of this role."""
    return tuple(slot.name for slot in MEMORY if slot.applies_to(role))


def _shape(key: str, param: Tensor) -> tuple[int, ...]:
    """Shape of an array of a parameter's state."""
    if key == "recall":
        return (sum(map(math.prod, STATE.values())),)
    return _SLOTS[key].tensor_shape(tuple(param.shape), CHUNK_LENGTH)


def _state_dtype(key: str, dtype: torch.dtype) -> torch.dtype:
    """Dtype of an array of a parameter's state."""
    is_narrow = key in _SLOTS and _SLOTS[key].dtype == "bfloat16"
    return torch.bfloat16 if is_narrow else _work_dtype(dtype)


def _work_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _check_group(group: Mapping[str, Any], number: int) -> None:
    for name in ("lr", "weight_decay"):
        value = group[name]
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise ValueError(f"{name} of group {number} must be one number, not a tensor of {value.numel()}")
            # The value of a tensor on another device would have to be waited for.
            value = value.item() if value.is_cpu else 0.0
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} of group {number} must be a finite number of at least 0, not {group[name]!r}")
    total = group["total_steps"]
    if total is not None and (not isinstance(total, int) or isinstance(total, bool) or total < 1):
        raise ValueError(
            f"total_steps of group {number} must be a positive integer, or None where the end is not known, "
            f"not {total!r}"
        )
    if group["pretrained"] not in _PRETRAINED:
        raise ValueError(
            f"pretrained of group {number} must be True, False, or None to leave it to the first step, "
            f"not {group['pretrained']!r}"
        )
    if group["role"] is not None and group["role"] not in ROLES:
        raise ValueError(
            f"role of group {number} must be one of {', '.join(ROLES)}, or None for that of the name or the shape, "
            f"not {group['role']!r}"
        )
    for place, param in enumerate(group["params"]):
        if not param.is_floating_point():
            raise ValueError(
                f"parameter {place} of group {number} has dtype {param.dtype}, and only floating-point parameters can "
                "be trained; leave it out or convert it"
            )
        _describe(group, place, param)


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
    keys = {*_slot_names(role), *(["recall"] if STATE else [])}
    if state and state.keys() != keys:
        raise ValueError(
            f"the state of {where} holds {', '.join(sorted(map(str, state)))} where {', '.join(sorted(keys))} "
            f"belong; load it into the optimizer that saved it"
        )
    for name, value in state.items():
        shape = _shape(name, param)
        if tuple(value.shape) != shape:
            raise ValueError(
                f"{name} of {where} has shape {tuple(value.shape)} in this state where {shape} is needed; load it for "
                "the parameters that it was saved for"
            )
