"""The optimizer: gathers tensors into rows of chunks, runs the cell's phases over them, and writes the results back."""

import dataclasses
import functools
import itertools
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, overload

import torch
from safetensors.torch import load_file
from torch import Tensor

from . import _phases
from ._phases import CHUNK_LENGTH, DIGEST, INPUTS, MEMORY, NAME, SAMPLE_CHUNKS, STATE

_STATE_SIZES = [math.prod(shape) for shape in STATE.values()]
_REMEMBERED_PLANS = 16


@functools.cache
def _weights(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    file = pathlib.Path(__file__).with_name("weights.safetensors")
    return {name: value.to(device, dtype) for name, value in load_file(file).items()}


class Mnemosyne(torch.optim.Optimizer):
    """A learned optimizer. Its step size is part of what it has learned, so there is no learning rate to find.

    **Arguments:**

    - `params`: parameters, named parameters or groups of them, of any floating dtype. Arithmetic and state are float32
        (float64 for float64 parameters).
    - `lr`: multiplies the step; for schedulers and for groups that should move less.
    - `weight_decay`: decoupled; a step moves a parameter by `-lr * weight_decay * parameter` besides.
    - `total_steps`: how many steps will be taken, if that is known. Steps then shrink towards the end.
    - `block_size`: coordinates that are worked on at once, which bounds the workspace.

    A step in which any gradient is not finite changes no parameter and no state; `skipped_steps` counts them.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1.0,
        weight_decay: float = 0.0,
        total_steps: int | None = None,
        block_size: int = 65536,
    ):
        if not isinstance(block_size, int) or block_size < 1:
            raise ValueError(f"block_size counts coordinates and must be a positive integer, not {block_size!r}")
        self._block_size = block_size
        self._plans: dict[Any, list[_Plan]] = {}
        defaults = {"lr": lr, "weight_decay": weight_decay, "total_steps": total_steps, "cell": DIGEST}
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
            _check_group(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` saved, exactly, whatever the dtype and device of the parameters."""
        cells = {group.get("cell") for group in state_dict["param_groups"]}
        if cells != {DIGEST}:
            raise ValueError(
                f"this state was not saved by {NAME} ({DIGEST[:12]}); load it into the optimizer that saved it"
            )
        super().load_state_dict(state_dict)
        # The base class has cast the state to the parameters' dtype.
        names = itertools.chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        params = itertools.chain.from_iterable(group["params"] for group in self.param_groups)
        for name, param in zip(names, params, strict=True):
            for key, value in state_dict["state"].get(name, {}).items():
                self.state[param][key] = torch.empty_like(value, dtype=_work_dtype(param), device=param.device)
                self.state[param][key].copy_(value)
        clock = self.param_groups[0]
        for key in ("step", "skipped"):
            clock[key] = clock[key].to(clock["params"][0].device)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_block_size": self._block_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._plans = {}

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
        runs = [_Run(plan, self) for plan in self._active_plans()]
        if not runs:
            return loss
        clock = self.param_groups[0]
        step, skipped = clock["step"], clock["skipped"]
        finite = torch.stack([run.attend().to(step.device) for run in runs]).all()
        for run in runs:
            run.update(finite, step)
        step.add_(finite)
        skipped.add_(~finite)
        return loss

    def _active_plans(self) -> "list[_Plan]":
        """Plans for the parameters that have a gradient, one for each device and dtype of arithmetic."""
        active: list[tuple[Tensor, int]] = []
        for number, group in enumerate(self.param_groups):
            for place, param in enumerate(group["params"]):
                if param.grad is None or param.numel() == 0:
                    continue
                if param.grad.layout is not torch.strided:
                    raise RuntimeError(
                        f"the gradient of parameter {place} of group {number}, shape {tuple(param.shape)}, is sparse, "
                        f"which {type(self).__name__} cannot use; make it dense (sparse=False for an embedding)"
                    )
                active.append((param, number))
        key = tuple((id(param), param.shape, param.dtype, param.device) for param, _ in active)
        if key not in self._plans:
            if len(self._plans) >= _REMEMBERED_PLANS:
                self._plans.clear()
            buckets: dict[tuple[torch.device, torch.dtype], list[tuple[Tensor, int]]] = {}
            for param, number in active:
                buckets.setdefault((param.device, _work_dtype(param)), []).append((param, number))
            self._plans[key] = [_Plan.make(bucket, self._block_size) for bucket in buckets.values()]
        return self._plans[key]


def _work_dtype(param: Tensor) -> torch.dtype:
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def _check_group(group: Mapping[str, Any]) -> None:
    for name in ("lr", "weight_decay"):
        value = group[name]
        if not isinstance(value, Tensor) and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of at least 0, not {value!r}")
    total = group["total_steps"]
    if total is not None and (not isinstance(total, int) or isinstance(total, bool) or total < 1):
        raise ValueError(f"total_steps must be a positive integer, or None where the end is not known, not {total!r}")
    for place, param in enumerate(group["params"]):
        if not param.is_floating_point():
            raise ValueError(
                f"parameter {place} of the group has dtype {param.dtype}; only floating-point parameters can be trained"
            )


def _chunks(coordinates: int) -> int:
    return -(-coordinates // CHUNK_LENGTH)


def _read(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Coordinates of a tensor in row-major order, without a copy of the whole of it."""
    if tensor.is_contiguous():
        return tensor.view(-1)[start:stop]
    return torch.take(tensor, torch.arange(start, stop, device=tensor.device))


@dataclasses.dataclass(frozen=True)
class _Block:
    """Consecutive chunks of one large tensor."""

    tensor: int
    start: int
    stop: int

    def gather(self, tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
        values = _read(tensors[self.tensor], self.start, self.stop).to(dtype)
        if values.numel() % CHUNK_LENGTH:
            values = torch.nn.functional.pad(values, (0, -values.numel() % CHUNK_LENGTH))
        return values.view(-1, CHUNK_LENGTH)

    def scatter(self, rows: Tensor, tensors: list[Tensor]) -> None:
        tensor, values = tensors[self.tensor], rows.view(-1)[: self.stop - self.start]
        if tensor.is_contiguous():
            tensor.view(-1)[self.start : self.stop].copy_(values)
        else:
            places = torch.arange(self.start, self.stop, device=tensor.device)
            tensor.put_(places, values.to(tensor.dtype))

    def of_chunks(self, rows: Tensor) -> Tensor:
        """The row of the tensor, for each of the chunks."""
        row = rows[self.tensor]
        return row.expand(_chunks(self.stop - self.start), *row.shape)

    def total(self, rows: Tensor) -> Tensor:
        """Rows of chunks, summed for each of the tensors."""
        return rows.sum(0, keepdim=True)


@dataclasses.dataclass(frozen=True)
class _Pack:
    """Chunks of several tensors, all of each or a sample of it, padded to whole chunks."""

    first: int
    """Position of the first tensor; the others follow it."""
    sizes: list[int]
    picks: list[Tensor | None]
    """For each tensor the chunks that are taken, or None for all."""
    lengths: Tensor
    owner: Tensor
    valid: Tensor

    @classmethod
    def make(cls, first: int, sizes: list[int], sampled: bool, device: torch.device) -> "_Pack":
        picks, masks, lengths = [], [], []
        for size in sizes:
            chunks = _chunks(size)
            if sampled and chunks > SAMPLE_CHUNKS:
                taken = torch.arange(SAMPLE_CHUNKS) * chunks // SAMPLE_CHUNKS
                picks.append(taken.to(device))
                lengths.append(SAMPLE_CHUNKS)
                masks.append(torch.ones(SAMPLE_CHUNKS * CHUNK_LENGTH, dtype=torch.bool))
            else:
                picks.append(None)
                lengths.append(chunks)
                masks.append(torch.arange(chunks * CHUNK_LENGTH) < size)
        counts = torch.tensor(lengths)
        owner = torch.repeat_interleave(torch.arange(first, first + len(sizes)), counts)
        valid = torch.cat(masks).view(-1, CHUNK_LENGTH)
        return cls(first, sizes, picks, counts.to(device), owner.to(device), valid.to(device))

    def gather(self, tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
        pieces = []
        for place, (size, picked) in enumerate(zip(self.sizes, self.picks, strict=True), self.first):
            tensor = tensors[place]
            if picked is None:
                pieces.append(tensor.reshape(-1))
                if size % CHUNK_LENGTH:
                    pieces.append(self._padding(-size % CHUNK_LENGTH, tensor))
            elif tensor.is_contiguous():
                # The sample of a tensor never holds its last chunk, the one that may be short.
                whole = size // CHUNK_LENGTH
                pieces.append(tensor.view(-1)[: whole * CHUNK_LENGTH].view(whole, -1).index_select(0, picked).view(-1))
            else:
                places = picked[:, None] * CHUNK_LENGTH + torch.arange(CHUNK_LENGTH, device=picked.device)
                pieces.append(torch.take(tensor, places).view(-1))
        return torch.cat(pieces).to(dtype).view(-1, CHUNK_LENGTH)

    @staticmethod
    def _padding(count: int, like: Tensor) -> Tensor:
        return torch.zeros(count, dtype=like.dtype, device=like.device)

    def scatter(self, rows: Tensor, tensors: list[Tensor]) -> None:
        mine = tensors[self.first : self.first + len(self.sizes)]
        pieces = rows.view(-1).split([_chunks(size) * CHUNK_LENGTH for size in self.sizes])
        new = [piece[:size].view(tensor.shape) for piece, size, tensor in zip(pieces, self.sizes, mine, strict=True)]
        torch._foreach_copy_(mine, new)  # pyright: ignore[reportPrivateImportUsage]

    def of_chunks(self, rows: Tensor) -> Tensor:
        """The row of its tensor, for each of the chunks."""
        return rows.index_select(0, self.owner)

    def total(self, rows: Tensor) -> Tensor:
        """Rows of chunks, summed for each of the tensors."""
        return torch.segment_reduce(rows, "sum", lengths=self.lengths, axis=0, unsafe=True)


def _packs(first: int, sizes: list[int], block_size: int, sampled: bool, device: torch.device) -> Iterator[_Pack]:
    """Consecutive tensors in packs of at most `block_size` coordinates, or of one tensor."""
    start, held = 0, 0
    for place, size in enumerate(sizes):
        chunks = min(_chunks(size), SAMPLE_CHUNKS) if sampled else _chunks(size)
        if place > start and held + chunks * CHUNK_LENGTH > block_size:
            yield _Pack.make(first + start, sizes[start:place], sampled, device)
            start, held = place, 0
        held += chunks * CHUNK_LENGTH
    if sizes:
        yield _Pack.make(first + start, sizes[start:], sampled, device)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How the parameters of one device and dtype are cut: once over all chunks, once over the sample."""

    params: list[Tensor]
    groups: list[tuple[int, int]]
    """Runs of parameters of one group: number of the group and length of the run."""
    facts: dict[str, Tensor]
    parts: list[_Pack | _Block]
    samples: list[_Pack]
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def make(cls, bucket: list[tuple[Tensor, int]], block_size: int) -> "_Plan":
        block_size = max(block_size // CHUNK_LENGTH, 1) * CHUNK_LENGTH
        # Small tensors first, so that packs hold consecutive ones.
        bucket = sorted(bucket, key=lambda entry: entry[0].numel() > block_size)
        params = [param for param, _ in bucket]
        device, dtype = params[0].device, _work_dtype(params[0])
        sizes = [param.numel() for param in params]
        small = sum(size <= block_size for size in sizes)
        blocks = [
            _Block(place, start, min(start + block_size, sizes[place]))
            for place in range(small, len(sizes))
            for start in range(0, sizes[place], block_size)
        ]
        return cls(
            params=params,
            groups=[(key, len(list(run))) for key, run in itertools.groupby(number for _, number in bucket)],
            facts={key: value.to(device, dtype) for key, value in _facts([param.shape for param in params]).items()},
            parts=[*_packs(0, sizes[:small], block_size, False, device), *blocks],
            samples=list(_packs(0, sizes, block_size, True, device)),
            device=device,
            dtype=dtype,
        )


def _facts(shapes: list[torch.Size]) -> dict[str, Tensor]:
    """What the cell is told of each tensor's shape."""
    matrix = [len(shape) >= 2 for shape in shapes]
    return {
        "facts.coordinates": torch.tensor([float(shape.numel()) for shape in shapes]),
        "facts.matrix": torch.tensor([float(is_matrix) for is_matrix in matrix]),
        "facts.aspect": torch.tensor(
            [max(s) * max(s) / s.numel() if is_matrix else 1.0 for s, is_matrix in zip(shapes, matrix, strict=True)]
        ),
    }


class _Run:
    """One step over the parameters of a plan."""

    def __init__(self, plan: _Plan, optimizer: Mnemosyne):
        self.plan = plan
        self.groups = optimizer.param_groups
        self.weights = _weights(plan.device, plan.dtype)
        states = [self._state(optimizer.state[param], param) for param in plan.params]
        self.chunked: dict[str, list[Tensor]] = {
            "param": plan.params,
            "grad": [param.grad for param in plan.params if param.grad is not None],
            **{f"memory.{slot}": [state[slot] for state in states] for slot in MEMORY},
        }
        self.recalled = [state["recall"] for state in states]
        parts = torch.stack(self.recalled).split(_STATE_SIZES, dim=1)
        self.rows = dict(plan.facts)
        for (name, shape), part in zip(STATE.items(), parts, strict=True):
            self.rows[f"state.{name}"] = part.reshape(-1, *shape)

    def _state(self, state: dict[str, Tensor], param: Tensor) -> dict[str, Tensor]:
        if not state:
            for slot in MEMORY:
                state[slot] = torch.zeros(param.shape, dtype=self.plan.dtype, device=self.plan.device)
            state["recall"] = torch.cat([self.weights[f"initial.{name}"].reshape(-1) for name in STATE])
        return state

    def _inputs(self, phase: str, part: _Pack | _Block) -> dict[str, Tensor]:
        inputs = {}
        for name in INPUTS[phase]:
            if name in self.chunked:
                inputs[name] = part.gather(self.chunked[name], self.plan.dtype)
            elif name == "valid" and isinstance(part, _Pack):
                inputs[name] = part.valid
            else:
                inputs[name] = part.of_chunks(self.rows[name])
        return inputs

    def _sums(self, phase: Callable[..., dict[str, Tensor]], parts: Iterable[_Pack | _Block]) -> None:
        """Runs a phase over all parts and keeps what it gives, summed for each tensor."""
        sums: dict[str, list[Tensor]] = {}
        last = None
        for part in parts:
            for name, rows in phase(self.weights, self._inputs(phase.__name__, part)).items():
                total = part.total(rows)
                found = sums.setdefault(name, [])
                if isinstance(part, _Block) and isinstance(last, _Block) and last.tensor == part.tensor:
                    found[-1] = found[-1] + total
                else:
                    found.append(total)
            last = part
        self.rows.update((name, torch.cat(totals)) for name, totals in sums.items())

    def attend(self) -> Tensor:
        """Moments and summaries. Returns whether all gradients are finite, without waiting for the device."""
        known = set(self.rows)
        self._sums(_phases.measure, self.plan.parts)
        moments = [self.rows[name] for name in self.rows if name not in known]
        finite = torch.isfinite(torch.stack(moments)).all()
        self._sums(_phases.encode, self.plan.samples)
        return finite

    def update(self, finite: Tensor, step: Tensor) -> None:
        """Next parameters, memory and state."""
        count = len(self.plan.params)
        self.rows["guard.finite"] = self._everywhere(finite, count)
        self.rows["clock.step"] = self._everywhere(step, count)
        for row, option in (("clock.total", "total_steps"), ("hyper.lr", "lr"), ("hyper.weight_decay", "weight_decay")):
            runs = [self._everywhere(self.groups[number][option] or 0.0, length) for number, length in self.plan.groups]
            self.rows[row] = torch.cat(runs)
        recalled = _phases.recall(self.weights, {name: self.rows[name] for name in INPUTS["recall"]})
        state = torch.cat([recalled[f"state.{name}"].reshape(count, -1) for name in STATE], dim=1)
        self.rows.update(recalled)
        self._sums(_phases.probe, self.plan.samples)
        for part in self.plan.parts:
            for name, rows in _phases.update(self.weights, self._inputs("update", part)).items():
                part.scatter(rows, self.chunked[name])
        torch._foreach_copy_(self.recalled, list(state.unbind(0)))  # pyright: ignore[reportPrivateImportUsage]

    def _everywhere(self, value: float | Tensor, count: int) -> Tensor:
        """The same number for that many tensors."""
        if isinstance(value, Tensor):
            return value.to(self.plan.device, self.plan.dtype).expand(count)
        return torch.full((count,), float(value), dtype=self.plan.dtype, device=self.plan.device)
