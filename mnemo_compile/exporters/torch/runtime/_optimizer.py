"""The subclass of `torch.optim.Optimizer`: parameter groups, state, and a step."""

import contextlib
import functools
import logging
import math
import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from ._backend import choose_backend, cpu_sizes, give_up_compiling, is_small, multiplies_alone
from ._last import LastStep
from ._partition import Partition
from ._parts import Facts, Shape
from ._phases import CHUNK_LENGTH, DIGEST, INPUTS, MEMORY, NAME, POINTWISE, STATE, TILE, VERSION
from ._precision import Precision, precision_of, PRECISIONS
from ._roles import describe, Description, ROLES
from ._shards import check_placements, like, local, local_grad, mesh_of, Sharding, share
from ._step import Bucket, CompilationError, initial_state, is_fake, take_step, weights

_CELL = {"name": NAME, "version": VERSION, "digest": DIGEST}
_SLOTS = {slot.name: slot for slot in MEMORY}
_DEFAULTS = {"weight_decay": 0.0, "pretrained": None}
"""Those of options that a state brings along."""
_PRETRAINED = {None: -1.0, False: 0.0, True: 1.0}
"""The number that a cell receives for each answer."""
_LOGGER = logging.getLogger(__name__)
_KEYS = (*_SLOTS, *(["recall"] if STATE else []))
"""Keys of a parameter's state: its memory slots, and the state of `recall` as one vector."""
_OPTIONS = ("lr", "weight_decay", "total_steps", "pretrained", "role")
"""Keys of a group: what a user chooses."""
_CLOCK = ("step", "skipped")
"""Keys of a group: the numbers of steps taken and refused. All groups hold the same tensors."""
_SMALLEST_LR = 0.01
"""An `lr` below this is a learning rate of another optimizer."""
_PLANS = 4
"""Plans that are kept for each device and dtype, for sets of gradients that take turns."""


class _Place(NamedTuple):
    """A tensor that has a gradient."""

    facts: Facts
    number: int
    """Its place in the lists of a step."""
    label: str
    """Its name, or the numbers of its group and place."""
    placements: tuple[Any, ...] | None
    """How it is cut, if it is sharded."""
    held: Shape
    """The shape of what this process holds of it."""


class _Plan(NamedTuple):
    """What a step must know of the tensors of one device, dtype and mesh that have gradients."""

    places: tuple[int, ...]
    """Their places in the lists of a step."""
    labels: tuple[str, ...]
    backend: str
    is_alone: bool
    """Whether one thread multiplies matrices."""
    partition: Partition
    sharding: Sharding | None
    launcher: Any
    """The tables of kernels, or None where no kernels run."""


_Kind = tuple[torch.device, torch.dtype, Any]
"""A device, a dtype of arithmetic, and a mesh or None."""


class Mnemosyne(torch.optim.Optimizer):
    """A learned optimizer. Its step size is part of what it has learned, so there is no learning rate to find.

    **Arguments:**

    - `params`: parameters, named parameters or groups of them, of any floating dtype. Arithmetic and state are float32
        (float64 for float64 parameters). Pass `model.named_parameters()`, so that roles follow from names.
    - `lr`: multiplies the step; for schedulers and for groups that should move less.
    - `weight_decay`: decoupled, as in AdamW at its customary learning rate of 1e-3: a step takes
        `lr * weight_decay * 1e-3 * schedule` off a parameter, as a fraction of it. The schedule falls from 1 towards
        the end.
    - `total_steps`: the number of steps of the training, if it is known. Steps then shrink towards the end. What is
        given here counts, and not what a state that is loaded later was saved with.
    - `pretrained`: whether the parameters have been trained before. Steps are then smaller. None leaves it to what the
        first step sees of the parameters.
    - `block_size`: the number of coordinates in a block, which bounds the workspace.
    - `backend`: `"triton"` for kernels that compute all tensors in a few launches on a GPU, `"torch"` for batched torch
        operations, or `"compiled"` for compiled functions that update large tensors, whose first step takes long. No
        kernel updates float64 parameters: torch operations do. None picks the fastest for the device and the number of
        parameters.
    - `precision`: of the factors of the matrix products that make a matrix's direction, `"bfloat16"`, `"tf32"` or
        `"float32"`. Sums are float32. None takes float32 on a CPU and bfloat16 on a GPU. Products of float64 parameters
        are float64.

    The role of a parameter in its network follows from its group's `role`, such as `"role": "head"`, else from its
    name, else from its shape. Roles are vector, matrix, embedding, head and convolution.

    A step in which any gradient is not finite changes no parameter and no state; `skipped_steps` counts them.

    Parameters may be DTensors, as `fully_shard` (FSDP2) and tensor parallelism make them. All processes of their mesh
    must take each step. The update is that of the whole tensors.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1.0,
        weight_decay: float = 0.0,
        total_steps: int | None = None,
        pretrained: bool | None = None,
        block_size: int = 131072,
        backend: str | None = None,
        precision: Precision | None = None,
    ):
        if not _is_count(block_size):
            raise ValueError(f"block_size counts coordinates and must be a positive integer, not {block_size!r}")
        if precision is not None and precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, or None for the device's default, not {precision!r}"
            )
        if not isinstance(params, Tensor):
            params = list(params)
            if not params:
                raise ValueError("there are no parameters to train; pass the parameters of a model that has some")
        _check_caller()
        self._block_size = operator.index(block_size)
        self._backend = backend
        self._precision: Precision | None = precision
        self._forget()
        self._tried = 0
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "total_steps": total_steps,
            "pretrained": pretrained,
            "role": None,
            "cell": _CELL,
        }
        super().__init__(params, defaults)
        self._is_made = True
        _log_ambiguous(self.param_groups)

    def _forget(self) -> None:
        """Forgets what is not saved."""
        self._is_made = False
        self._counters: dict[str, Tensor] = {}
        self._given: set[int] = set()
        """Identities of the parameters that the optimizer was given."""
        self._has_matrices = False
        self._plans: list[tuple[_Kind, _Plan]] = []
        """Those of this step."""
        self._planners: dict[_Kind, Callable[[tuple[_Place, ...], bool], _Plan]] = {}
        """They remember some plans."""
        self._last: LastStep | None = None
        """What the last step found, or None if the next one must look at everything."""
        self._sizes: list[tuple[list[str], Callable[[], Tensor]]] = []
        """Names of parameters, and what computes the sizes of their last steps."""
        self._tried: int | None = None
        """Steps that were tried. None if that is not known."""
        self._is_over = False
        """Whether steps have gone beyond `total_steps`."""
        self._highest_lr: dict[int, float] = {}
        """The highest `lr` of each group that has a scheduler."""
        self._is_annealed_twice = False
        """Whether a scheduler and `total_steps` both make steps smaller."""

    @property
    def skipped_steps(self) -> int:
        """Steps refused because a gradient was not finite. Reading it waits for the device."""
        return int(self._counters["skipped"])

    def step_sizes(self) -> dict[str, float]:
        """The step size of each parameter in the last step, to be logged. Reading it waits for the device.

        **Returns:**

        For each parameter that had a gradient, by its name, or by the numbers of its group and its place (`"0.2"`):
        what its direction was multiplied with, 0 if the step was refused. Entries of directions are about 1 where
        gradients agree from step to step, and smaller elsewhere. It is empty before the first step, and where
        `torch.compile` runs `step`.

        **Raises:**

        `NotImplementedError` if the cell does not say it.
        """
        if not any("context.step" in names for names in INPUTS.values()):
            raise NotImplementedError(f"{NAME} does not say its step sizes; compare parameters before and after a step")
        return {
            label: size
            for labels, sizes in self._sizes
            for label, size in zip(labels, sizes().double().tolist(), strict=True)
        }

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, which may have its own `lr`, `weight_decay`, `total_steps`, `pretrained` and `role`."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check_group(group, len(self.param_groups) - 1)
            for device in {param.device for param in group["params"]} or {_home(group)}:
                choose_backend(self._backend, device)
        except ValueError:
            self.param_groups.pop()
            raise
        _warn_of_small_lr(group, len(self.param_groups) - 1)
        if group["total_steps"] is not None:
            group["total_steps"] = operator.index(group["total_steps"])
        if not self._counters:
            with _outside_modes():
                self._counters = {name: torch.zeros((), dtype=torch.int64, device=_home(group)) for name in _CLOCK}
        group.update(self._counters)
        self._know(group)
        self._last = None
        if self._is_made:
            _log_ambiguous([group])

    def _know(self, group: Mapping[str, Any]) -> None:
        """Remembers the parameters of a group."""
        self._given.update(map(id, group["params"]))
        self._has_matrices |= any(param.dim() > 1 for param in group["params"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` saved, exactly, whatever the dtype and device of the parameters.

        A `total_steps` that a group has here counts, and not the saved one. Keys in the state of a parameter that are
        not this optimizer's own are loaded as torch loads them.
        """
        before = [dict(group) for group in self.param_groups]
        saved: list[tuple[Tensor, Mapping[str, Any]]] = []

        def check(_: torch.optim.Optimizer, found: dict[str, Any]) -> None:
            saved.extend(self._checked(found))

        def restore(_: torch.optim.Optimizer) -> None:
            with _outside_modes():
                self._restore(saved, before)

        # The user's hooks come before the one and after the other, so that what they change counts.
        handles = [
            self.register_load_state_dict_pre_hook(check),
            self.register_load_state_dict_post_hook(restore, prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()

    def _checked(self, state_dict: Mapping[str, Any]) -> list[tuple[Tensor, Mapping[str, Any]]]:
        """Each parameter and its saved state, if this optimizer saved it."""
        _check_cell(state_dict["param_groups"])
        _check_keys(state_dict["param_groups"])
        pairs = []
        for number, (saved, group) in enumerate(zip(state_dict["param_groups"], self.param_groups, strict=False)):
            # Names come with the saved group, or are those that the parameters have here.
            described = {**group, **saved}
            for place, (key, param) in enumerate(zip(saved["params"], group["params"], strict=False)):
                state = state_dict["state"].get(key, {})
                _check_state(state, param, _describe(described, place, param).role, _where(number, place))
                pairs.append((param, state))
        return pairs

    def _restore(self, saved: Iterable[tuple[Tensor, Mapping[str, Any]]], before: Iterable[Mapping[str, Any]]) -> None:
        """Restores the state's own dtypes, which the base class has cast to the parameters', and shared counters."""
        for param, state in saved:
            for name in state.keys() & {*_KEYS}:
                value = share(param, state[name]) if name in _SLOTS else state[name]
                own = torch.empty(value.shape, dtype=_state_dtype(name, param.dtype), device=local(param).device)
                own.copy_(value)
                self.state[param][name] = like(param, own, tuple(state[name].shape)) if name in _SLOTS else own
        for number, (group, old) in enumerate(zip(self.param_groups, before, strict=True)):
            if old["total_steps"] is not None:
                group["total_steps"] = old["total_steps"]
            for name in ("weight_decay", "pretrained"):
                if old[name] not in (_DEFAULTS[name], group[name]):
                    _warn(
                        f"{name} of group {number} is {group[name]!r}, as in the state that was loaded, and not "
                        f"{old[name]!r}; set optimizer.param_groups[{number}][{name!r}] to change it",
                    )
        if self.param_groups:
            home = _home(self.param_groups[0])
            self._counters = {name: self.param_groups[0][name].to(home) for name in _CLOCK}
            self._share_counters()
        self._last = None
        self._tried = _value(self._counters["step"]) if self._counters else 0
        self._is_over = False

    def _share_counters(self) -> None:
        for group in self.param_groups:
            group.update(self._counters)

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("_block_size", "_backend", "_precision", "_counters")}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # All groups may be gone for a while. A state that is loaded comes here too, and leaves the counters.
        counters = self._counters
        self._forget()
        self._is_made = True
        self._counters = counters
        for group in self.param_groups:
            self._know(group)
        self._tried = _value(self._counters["step"]) if self._counters else 0

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
        if torch.compiler.is_compiling():
            self._take_step()
        else:
            with _outside_modes():
                self._take_step()
        return loss

    def _take_step(self) -> None:
        is_traced = torch.compiler.is_compiling()
        last = None if is_traced else self._known()
        buckets = self._buckets(is_traced) if last is None else last.buckets
        if is_traced and buckets:
            self._step_over(buckets, None, True)
        elif buckets:
            try:
                self._step_over(buckets, last, False)
            except CompilationError as error:
                if self._backend is not None:
                    raise RuntimeError(f"{error}; choose backend='torch'") from error
                give_up_compiling(error)
                self._planners.clear()
                self._step_over(self._buckets(False), None, False)

    def _step_over(self, buckets: Sequence[Bucket], last: LastStep | None, is_traced: bool) -> None:
        # A graph that `torch.compile` traces may hold a tensor under one name only.
        clock = self.param_groups[0]
        options: dict[str, list[float | Tensor]] = {
            "hyper.lr": [group["lr"] for group in self.param_groups],
            "hyper.weight_decay": [group["weight_decay"] for group in self.param_groups],
            "hyper.pretrained": [_PRETRAINED[group["pretrained"]] for group in self.param_groups],
            "clock.total": [group["total_steps"] or 0.0 for group in self.param_groups],
        }
        take_step(buckets, clock["step"], clock["skipped"], options)
        if not is_traced:
            self._last = last or self._remembered(buckets)
            self._sizes = [
                ([plan.labels[place] for place in plan.partition.order], bucket.sizes())
                for (_, plan), bucket in zip(self._plans, buckets, strict=True)
            ]
            for bucket in buckets:
                bucket.release_gradients()
            self._note_schedule()
            self._note_end()

    def _note_schedule(self) -> None:
        """Warns once if a scheduler anneals the step as well as `total_steps` does."""
        for number, group in enumerate(self.param_groups if not self._is_annealed_twice else ()):
            lr = group["lr"]
            # A scheduler leaves its first value in the group. A tensor's value may have to be waited for.
            if "initial_lr" not in group or not group["total_steps"] or isinstance(lr, Tensor):
                continue
            highest = self._highest_lr[number] = max(lr, self._highest_lr.get(number, lr))
            if lr < highest / 2:
                self._is_annealed_twice = True
                _warn(
                    f"a scheduler has brought lr of group {number} from {highest:g} to {lr:g}, and total_steps makes "
                    "steps smaller as well: it anneals twice; use a constant schedule, or leave total_steps out",
                )
                return

    def _note_end(self) -> None:
        """Counts this step, and warns once if it was beyond `total_steps`."""
        if self._tried is None or self._is_over:
            return
        self._tried += 1
        total = min((group["total_steps"] for group in self.param_groups if group["total_steps"]), default=math.inf)
        if self._tried <= total:
            return
        # Only now the device is waited for: steps that were refused do not count.
        self._tried = _value(self._counters["step"])
        if self._tried is not None and self._tried > total:
            self._is_over = True
            _warn(
                f"step {self._tried} is beyond total_steps={total}, and steps stay as small as at the end; make the "
                "optimizer with the number of steps of the whole training",
            )

    def _known(self) -> LastStep | None:
        """The last step, whose buckets have new gradients, or None if more than their numbers has changed."""
        # A step that fails is not remembered.
        last, self._last = self._last, None
        if last is None or any(group.get("step") is not self._counters["step"] for group in self.param_groups):
            return None
        return last if last.receive_gradients(self.param_groups, self.state) else None

    def _remembered(self, buckets: Sequence[Bucket]) -> LastStep | None:
        """What this step found, if the next one can tell whether it is still so."""
        if not LastStep.can_tell(self.param_groups):
            return None
        slots = [key for key in _KEYS if key in _SLOTS]
        places = [plan.places for _, plan in self._plans]
        return LastStep(self.param_groups, self.state, slots, buckets, places)

    def _buckets(self, is_traced: bool) -> list[Bucket]:
        """The parameters that have a gradient, by device and dtype of arithmetic."""
        params: list[Tensor] = []
        grads: list[Tensor] = []
        states: list[list[Tensor]] = [[] for _ in _KEYS]
        self._init_group(is_traced, params, grads, *states)
        buckets = []
        for (device, dtype, _), (places, _, backend, small, parts, sharding, launcher) in self._plans:
            arrays = {name: [values[i] for i in places] for name, values in zip(_KEYS, states, strict=True)}
            tensors = {"param": [params[i] for i in places], "grad": [grads[i] for i in places]}
            tensors.update((f"memory.{slot}", arrays[slot]) for slot in _SLOTS)
            precision = precision_of(self._precision, device, dtype)
            recall = arrays.get("recall", [])
            if launcher is not None and launcher.reads(tensors):
                buckets.append(launcher.bucket(parts, tensors, recall, dtype, precision, sharding))
                continue
            is_compiled = is_traced or backend == "compiled"
            buckets.append(Bucket(parts, tensors, recall, device, dtype, precision, is_compiled, small, sharding))
        return buckets

    def _init_group(self, is_traced: bool, params: list[Tensor], grads: list[Tensor], *states: list[Tensor]) -> None:
        """Adds the parameters that have a gradient to the lists, makes missing state, and plans the step.

        `torch.compile` knows this method of an optimizer by its name and calls it instead of tracing it. It fills
        tensors into empty lists, and reads what the method stores in the optimizer.
        """
        found: dict[_Kind, list[_Place]] = {}
        for number, group in enumerate(self.param_groups):
            for place, param in enumerate(group["params"]):
                if param.grad is None or param.numel() == 0:
                    continue
                if id(param) not in self._given:
                    self._check_replaced(group, number, place)
                state = self._initialized(group, number, place)
                kind = (param.device, _work_dtype(param.dtype), mesh_of(param))
                name = _name(group, place)
                facts = Facts(tuple(param.shape), name, group["role"], number)
                own, grad = local(param), local_grad(param)
                placements = None if kind[2] is None else tuple(param.placements)
                found.setdefault(kind, []).append(
                    _Place(facts, len(params), name or f"{number}.{place}", placements, tuple(own.shape))
                )
                # Views of this alias do not cling to the parameter, which others may swap.
                params.append(own if is_traced else own.detach())
                grads.append(grad)
                for values, key in zip(states, _KEYS, strict=True):
                    # A slot that the parameter lacks is never read; the parameter only fills its place.
                    values.append(local(state[key]) if key in state else own)
        for device, dtype, _ in found:
            # The weights are read here, because the rest of a step may be traced.
            weights(device, dtype)
        self._plans = [(kind, self._planner(kind)(tuple(places), is_traced)) for kind, places in found.items()]
        self._move_counters(next(iter(found), None))

    def _planner(self, kind: _Kind) -> Callable[[tuple[_Place, ...], bool], _Plan]:
        if kind not in self._planners:
            make = functools.partial(_plan, kind, self._block_size, self._backend)
            self._planners[kind] = functools.lru_cache(maxsize=_PLANS)(make)
        return self._planners[kind]

    def _move_counters(self, kind: _Kind | None) -> None:
        """Moves the counters to where the parameters are, which may be elsewhere since the optimizer was made."""
        if self.param_groups and "step" not in self.param_groups[0]:
            self._share_counters()
        if kind is not None and self._counters["step"].device != kind[0]:
            is_meta = self._counters["step"].is_meta
            self._counters = {
                name: torch.zeros_like(value, device=kind[0]) if is_meta else value.to(kind[0])
                for name, value in self._counters.items()
            }
            self._share_counters()

    def _check_replaced(self, group: Mapping[str, Any], number: int, place: int) -> None:
        """Raises a `RuntimeError` if somebody has put flat parts of parameters in the place of parameters."""
        if self._has_matrices and all(param.dim() < 2 and id(param) not in self._given for param in group["params"]):
            raise RuntimeError(
                f"{_where(number, place)} is flat and was not given to {type(self).__name__}: DeepSpeed's ZeRO and "
                "Megatron's distributed optimizer hold parts of tensors, which it cannot update; use fully_shard"
            )

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
        # Others may keep something there too.
        if not any(key in state for key in _KEYS):
            own = local(param)
            for name in _slot_names(_describe(group, place, param).role):
                # Without a network, a slot has the shape of the parameter, and is cut as it is.
                shape = (*own.shape, *_SLOTS[name].shape) if own is not param else _shape(name, param)
                zeros = torch.zeros(shape, dtype=_state_dtype(name, param.dtype), device=own.device)
                state[name] = like(param, zeros, _shape(name, param))
            state.update(initial_state(own.device, dtype))
        return state


def _plan(kind: _Kind, block_size: int, choice: str | None, places: tuple[_Place, ...], is_traced: bool) -> _Plan:
    """How the tensors of a kind are cut in a step, which `torch.compile` may trace."""
    device, dtype, mesh = kind
    facts = [place.facts for place in places]
    here = [place.held for place in places]
    sharding = None
    if mesh is not None:
        sharding = Sharding(mesh, facts, [place.placements or () for place in places], here)
        _log_moving([places[each].label for each in sharding.moving])
        here = sharding.here
    coordinates = sum(map(math.prod, here))
    backend = choose_backend(choice, device, coordinates)
    small = not is_traced and is_small(device, backend, coordinates)
    # One compiled loop goes through a whole tensor.
    whole = POINTWISE and (is_traced or backend == "compiled")
    packed = tiled = block_size
    if device.type == "cpu" and not is_traced:
        block_size, packed = cpu_sizes(block_size, small)
    alone = small and multiplies_alone(device, coordinates)
    partition = Partition(facts, here, block_size, packed, whole, device, dtype, block_size if alone else tiled)
    numbers, labels = tuple(place.number for place in places), tuple(place.label for place in places)
    launcher = None
    if backend == "triton" and dtype == torch.float32 and not is_traced and not is_fake() and device.type != "meta":
        from ._launch import Launcher

        launcher = Launcher(partition, facts, here, device)
    return _Plan(numbers, labels, backend, alone, partition, sharding, launcher)


@contextlib.contextmanager
def _outside_modes() -> Iterator[None]:
    """Without gradients, and outside of `inference_mode`, whose tensors could not be changed later."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _is_count(value: Any) -> bool:
    """Whether this is a positive integer, also of NumPy."""
    try:
        return not isinstance(value, bool) and operator.index(value) > 0
    except TypeError:
        return False


def _home(group: Mapping[str, Any]) -> torch.device:
    """The device of the counters."""
    return group["params"][0].device if group["params"] else torch.device("cpu")


def _value(counter: Tensor) -> int | None:
    """The number in a counter, or None if it has none, as on the device meta."""
    try:
        return int(counter)
    except (RuntimeError, NotImplementedError):
        return None


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


def _log_moving(labels: Iterable[str]) -> None:
    """One line that lists the parameters of which parts travel in each step."""
    moving = ", ".join(labels)
    if moving:
        _LOGGER.info("parts of these parameters travel between processes in each step, cut as they are: %s", moving)


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
    if total is not None and not _is_count(total):
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
        if getattr(param, "_fsdp_flattened", False) or getattr(param, "_is_flat_param", False):
            raise ValueError(
                f"{_where(number, place)} is a part of what FullyShardedDataParallel has flattened, where tensors "
                "cannot be told from each other; use fully_shard"
            )
        check_placements(param, _where(number, place))
        role = _describe(group, place, param).role
        if mesh_of(param) is not None and any(_SLOTS[name].per == "chunk" for name in _slot_names(role)):
            raise ValueError(
                f"{_where(number, place)} is a DTensor, and {NAME} keeps numbers for each chunk of a tensor, which "
                "cannot be cut; use an optimizer without them, such as mnemosyne-base"
            )


def _warn_of_small_lr(group: Mapping[str, Any], number: int) -> None:
    """An `lr` that AdamW needs trains nothing here."""
    lr = group["lr"]
    if not isinstance(lr, Tensor) and 0 < lr < _SMALLEST_LR:
        _warn(
            f"lr of group {number} is {lr}, and multiplies a step whose size is learned, so that almost nothing moves; "
            "leave lr out",
        )


def _warn(message: str) -> None:
    """Warns of the line outside of this package and of torch from which the call came."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module.startswith(__name__.rpartition(".")[0]) or module.partition(".")[0] in ("torch", "contextlib")


def _check_caller() -> None:
    """Raises a `ValueError` inside of an optimizer that would give each process some of the parameters."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.distributed.optim.zero_redundancy_optimizer":
            raise ValueError(
                f"ZeroRedundancyOptimizer gives each process some of the parameters, and {NAME} must see the gradients "
                "of all of them; use fully_shard"
            )
        frame = frame.f_back


def _check_cell(groups: Iterable[Mapping[str, Any]]) -> None:
    for number, group in enumerate(groups):
        cell = group.get("cell")
        if not isinstance(cell, Mapping) or cell.get("digest") != DIGEST:
            saved = _title(cell) if isinstance(cell, Mapping) else "another optimizer"
            raise ValueError(
                f"group {number} of this state was saved by {saved}, and this is {_title(_CELL)}; load it into the "
                "optimizer that saved it"
            )


def _check_keys(groups: Iterable[Mapping[str, Any]]) -> None:
    """Raises a `ValueError` unless the saved groups have what a step reads of a group."""
    for number, group in enumerate(groups):
        missing = [name for name in (*_OPTIONS, *_CLOCK) if name not in group]
        if missing:
            raise ValueError(
                f"group {number} of this state lacks {', '.join(missing)}; load the whole of what state_dict gave"
            )
        for name in _CLOCK:
            if not isinstance(group[name], Tensor) or group[name].numel() != 1:
                raise ValueError(
                    f"{name} of group {number} of this state must be a tensor with one number, not {group[name]!r}; "
                    "load the whole of what state_dict gave"
                )


def _title(cell: Mapping[str, Any]) -> str:
    return f"{cell.get('name')} {cell.get('version')} (digest {str(cell.get('digest'))[:12]})"


def _check_state(state: Mapping[str, Any], param: Tensor, role: str, where: str) -> None:
    keys = {*_slot_names(role), *(["recall"] if STATE else [])}
    # Wrappers keep keys of their own beside them.
    found = state.keys() & {*_KEYS}
    if found and found != keys:
        raise ValueError(
            f"the state of {where} holds {', '.join(sorted(map(str, state)))} where {', '.join(sorted(keys))} "
            f"belong; load it into the optimizer that saved it"
        )
    for name in sorted(found):
        value, shape = state[name], _shape(name, param)
        if tuple(value.shape) != shape:
            raise ValueError(
                f"{name} of {where} has shape {tuple(value.shape)} in this state where {shape} is needed; load it for "
                "the parameters that it was saved for"
            )
