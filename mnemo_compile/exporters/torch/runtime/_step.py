"""One step: runs the phases of the plan over rows, sums their outputs, and writes the results back."""

import functools
import itertools
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from . import _phases
from ._partition import Part, Partition
from ._phases import INPUTS, STATE
from ._plan import CARRIED, group_of, Phase, PLAN
from ._precision import matmul_precision, Precision
from ._rows import Block, NUMBER, row_shape, SLOTS
from ._shards import Sharding
from ._tiles import TileBlock

Rows = Mapping[str, Tensor]

PHASES = tuple(phase for phase in PLAN if phase.name in INPUTS)
"""The phases of this cell, in order."""
_RUNS = tuple((rows, tuple(phases)) for rows, phases in itertools.groupby(PHASES, lambda phase: phase.rows))
"""Consecutive phases over rows of the same kind."""

_STATE_SIZES = [math.prod(shape) for shape in STATE.values()]

_WEIGHTS: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}


def weights(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The cell's weights and initial state, read once per device and dtype.

    In `FakeTensorMode` they are made fake, and are not kept.
    """
    # A compiler that traces has a mode of its own, which is not in force where this is called.
    modes = [] if torch.compiler.is_compiling() else _get_current_dispatch_mode_stack()
    fakes = [mode for mode in modes if isinstance(mode, FakeTensorMode)]
    if (device, dtype) not in _WEIGHTS:
        # Nothing of the modes around the first step may cling to what later steps use.
        with torch.inference_mode(False), unset_fake_temporarily():
            file = pathlib.Path(__file__).with_name("weights.safetensors")
            _WEIGHTS[device, dtype] = {
                name: value.to(device, dtype if value.is_floating_point() else None)
                for name, value in load_file(file).items()
            }
    known = _WEIGHTS[device, dtype]
    return {name: fakes[-1].from_tensor(value) for name, value in known.items()} if fakes else known


def initial_state(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The state of `recall` before the first step: one vector per tensor, or nothing."""
    initial = weights(device, dtype)
    return {"recall": torch.cat([initial[f"initial.{name}"].reshape(-1) for name in STATE])} if STATE else {}


def take_step(buckets: "Sequence[Bucket]", step: Tensor, options: Mapping[str, list[float | Tensor]]) -> Tensor:
    """Runs every phase of the plan, in order, without waiting for the device.

    **Arguments:**

    - `buckets`: all tensors that have a gradient.
    - `step`: steps taken before this one.
    - `options`: a number for each parameter group, by the names of rows, such as `hyper.lr`.

    **Returns:**

    Whether the step was taken: True if all gradients are finite. Otherwise nothing has changed.
    """
    finite = torch.ones((), dtype=torch.bool, device=step.device)
    for bucket in buckets:
        bucket.begin(step, options)
    for rows, phases in _RUNS:
        if rows == "tiles":
            for bucket in buckets:
                bucket.run_tiles(phases)
        else:
            for phase in phases:
                finite = _run(phase, buckets, finite)
    for bucket in buckets:
        bucket.store_state()
    return finite


def _run(phase: Phase, buckets: "Sequence[Bucket]", finite: Tensor) -> Tensor:
    """Runs a phase over chunks or tensors. Returns whether all gradients are finite so far."""
    outputs = [bucket.run(phase) for bucket in buckets]
    if phase.reduce == "network":
        for bucket in buckets:
            bucket.receive(outputs)
    if phase.decides:
        decisions = [torch.isfinite(_flat(each)).all().to(finite.device) for each in outputs if each]
        finite = torch.stack([finite, *decisions]).all()
        if len(buckets) > 1:
            for bucket in buckets:
                if bucket.sharding is not None:
                    finite = bucket.sharding.agree(finite)
        for bucket in buckets:
            bucket.decide(finite)
    return finite


def _flat(rows: Rows) -> Tensor:
    return torch.cat([value.reshape(-1) for value in rows.values()])


class Bucket:
    """Tensors of one device and one dtype of arithmetic, for one step or for several that find the same ones.

    **Arguments:**

    - `partition`: how the tensors are cut.
    - `tensors`: parameters, gradients and memory, by the names of a phase's inputs, in the order of the partition's
      shapes. A tensor that lacks a slot only fills its place.
    - `states`: the state of `recall` of each tensor.
    - `device`: the device of the arithmetic.
    - `dtype`: the dtype of the arithmetic.
    - `precision`: that of the factors of products of tiles.
    - `compiled`: whether compiled functions work on blocks.
    - `sharding`: how the tensors lie on a mesh, or None. Then `tensors` are what this process holds of them.
    """

    def __init__(
        self,
        partition: Partition,
        tensors: Mapping[str, list[Tensor]],
        states: list[Tensor],
        device: torch.device,
        dtype: torch.dtype,
        precision: Precision,
        compiled: bool,
        sharding: Sharding | None = None,
    ):
        self.partition = partition
        self.sharding = sharding
        self.held = tensors
        self.device = device
        self.dtype = dtype
        self.compiled = compiled
        self.precision: Precision = precision
        narrow = torch.bfloat16 if precision == "bfloat16" else dtype
        self.weights = {**weights(device, dtype), "products": torch.empty(0, dtype=narrow, device=device)}
        own = tensors if sharding is None else sharding.gather(tensors, self._is_kept)
        self.tensors = {name: [values[place] for place in partition.order] for name, values in own.items()}
        self.rows: dict[str, Tensor] = {}
        """Inputs and outputs of phases with a row per tensor, by name."""
        self.next_state: dict[str, Tensor] = {}
        self.states = [states[place] for place in partition.order] if STATE else []
        self._chosen: tuple[list[list[float | Tensor]], list[Tensor]] = [], []
        """The user's options of the last step, and their rows."""

    def receive_gradients(self, grads: Sequence[Tensor]) -> None:
        """Takes the gradients of another step, in the order of the constructor's lists."""
        self.tensors["grad"] = [grads[place] for place in self.partition.order]

    def release_gradients(self) -> None:
        """Forgets the gradients, so that others may free them."""
        self.tensors["grad"] = []
        self.held = {}

    def begin(self, step: Tensor, options: Mapping[str, list[float | Tensor]]) -> None:
        """Sets the clock, the user's options and the state."""
        self.rows = dict(self.partition.shape)
        self.rows["clock.step"] = self._number(step).expand(len(self.partition.order))
        self.rows.update(zip(options, self._options(list(options.values())), strict=True))
        if STATE:
            columns = torch.stack(self.states).split(_STATE_SIZES, dim=1)
            for (name, shape), column in zip(STATE.items(), columns, strict=True):
                self.rows[f"state.{name}"] = column.reshape(-1, *shape)

    def _options(self, values: list[list[float | Tensor]]) -> list[Tensor]:
        """Rows of options, which are given per group."""
        if torch.compiler.is_compiling() or any(isinstance(value, Tensor) for each in values for value in each):
            of_groups = [torch.stack([self._number(value) for value in each]) for each in values]
            return [each.index_select(0, self.partition.groups) for each in of_groups]
        if self._chosen[0] != values:
            # From other memory than pinned memory, a copy to a GPU would wait for it.
            is_copied = self.device.type == "cuda" and torch.cuda.is_available()
            table = torch.tensor(values, dtype=self.dtype, device="cpu", pin_memory=is_copied)
            of_groups = table.to(self.device, non_blocking=True)
            self._chosen = values, [*of_groups.index_select(1, self.partition.groups).unbind(0)]
        return self._chosen[1]

    def run(self, phase: Phase) -> dict[str, Tensor]:
        """Runs a phase. Returns outputs with a row per tensor; writes outputs per coordinate into the tensors."""
        with torch.autocast(self.device.type, enabled=False), matmul_precision("float32", self.device.type):
            return self._run_phase(phase)

    def _run_phase(self, phase: Phase) -> dict[str, Tensor]:
        self._prepare(phase)
        if phase.rows == "tensors":
            outputs = self._of_tensors(phase.name)
        elif phase.reduce == "tensor":
            outputs = self._sums(phase)
            if self.sharding is not None:
                outputs = self.sharding.sums(outputs, self.partition.order)
        else:
            for part in self.partition.untiled:
                self._update(phase, part)
            return {}
        self.next_state.update((name, rows) for name, rows in outputs.items() if group_of(name) in CARRIED)
        self.rows.update((name, rows) for name, rows in outputs.items() if group_of(name) not in CARRIED)
        return outputs

    def run_tiles(self, phases: Sequence[Phase]) -> None:
        """Runs consecutive phases over tiles, for one block of tiles after the other."""
        if self.partition.tiles:
            for phase in phases:
                self._prepare(phase)
        with torch.autocast(self.device.type, enabled=False), matmul_precision(self.precision, self.device.type):
            for block in self.partition.tiles:
                self._run_block(phases, block)

    def _run_block(self, phases: Sequence[Phase], block: TileBlock) -> None:
        rows: dict[str, Tensor] = {}
        carried: dict[str, Tensor] = {}
        for phase in phases:
            for name in INPUTS[phase.name]:
                if name not in rows:
                    rows[name] = self._tiles(name, block)
            outputs = getattr(_phases, phase.name)(self.weights, {name: rows[name] for name in INPUTS[phase.name]})
            for name, values in outputs.items():
                # Later phases read what was before the step of what the step carries on.
                (carried if group_of(name) in CARRIED else rows)[name] = values
        for name, values in carried.items():
            block.scatter(values, self.tensors[name])

    def _tiles(self, name: str, block: TileBlock) -> Tensor:
        """An input of a phase over tiles."""
        if name in self.tensors:
            return block.gather(self.tensors[name], self.dtype)
        return block.sides if group_of(name) == "tile" else block.of_tensors(self.rows[name])

    def receive(self, terms: Sequence[Rows]) -> None:
        """Computes the sums over the network; `terms` are the rows of each bucket."""
        for name in terms[0]:
            totals = [rows[name].sum(0).to(self.device, self.dtype) for rows in terms]
            total = torch.stack(totals).sum(0)
            self.rows[name] = total.expand(len(self.partition.order), *total.shape)

    def decide(self, finite: Tensor) -> None:
        """Stores whether all gradients are finite; if not, the step is refused."""
        self.rows["finite"] = self._number(finite).expand(len(self.partition.order))

    def sizes(self) -> Callable[[], Tensor]:
        """Computes the step size of each tensor in this step, in the order of the partition."""
        return functools.partial(_sizes, *map(self.rows.get, ("finite", "context.step", "hyper.lr")))

    def _is_kept(self, name: str, place: int) -> bool:
        """Whether a tensor has an array of this name."""
        return name in ("param", "grad") or name in self.partition.kinds[place].slots

    def store_state(self) -> None:
        """Writes the next state of `recall`, and what belongs to other processes."""
        if self.sharding is not None:
            names = [name for name in self.tensors if group_of(name) in CARRIED]
            rows = {place: row for row, place in enumerate(self.partition.order)}
            own = {name: [self.tensors[name][rows[place]] for place in range(len(rows))] for name in names}
            self.sharding.scatter(own, self.held, self._is_kept)
        if STATE:
            count = len(self.partition.order)
            state = torch.cat([self.next_state[f"state.{name}"].reshape(count, -1) for name in STATE], dim=1)
            torch._foreach_copy_(self.states, list(state.unbind(0)))  # pyright: ignore[reportPrivateImportUsage]

    def _number(self, value: float | Tensor) -> Tensor:
        if isinstance(value, Tensor):
            return value.to(self.device, self.dtype).reshape(())
        return torch.full((), float(value), dtype=self.dtype, device=self.device)

    def _of_tensors(self, name: str) -> dict[str, Tensor]:
        """The outputs of a function over tensors."""
        return getattr(_phases, name)(self.weights, {row: self.rows[row] for row in INPUTS[name]})

    def _prepare(self, phase: Phase) -> None:
        """Computes what a phase over chunks needs once per tensor."""
        if f"prepare_{phase.name}" in INPUTS:
            self.rows.update(self._of_tensors(f"prepare_{phase.name}"))

    def _sums(self, phase: Phase) -> dict[str, Tensor]:
        """The outputs of a phase over chunks, summed for each tensor."""
        sums: dict[str, list[Tensor]] = {}
        last = -1
        for part in self.partition.samples if phase.rows == "sample" else self.partition.parts:
            place = part.tensor if isinstance(part, Block) else -1
            for name, total in self._totals(phase, part).items():
                totals = sums.setdefault(name, [])
                if place >= 0 and place == last:
                    totals[-1] = totals[-1] + total
                else:
                    totals.append(total)
            last = place
        return {name: torch.cat(totals) for name, totals in sums.items()}

    def _totals(self, phase: Phase, part: Part) -> dict[str, Tensor]:
        views = self._views(phase, part)
        if views is not None:
            rows = self._rows_beside(phase, part, views)
            return _compiled(_sums_of_many)(_fused(phase), self.weights, rows, views, self.dtype)
        return {name: part.total(rows) for name, rows in self._run(phase, part).items()}

    def _update(self, phase: Phase, part: Part) -> None:
        views = self._views(phase, part)
        if views is not None:
            rows = self._rows_beside(phase, part, views)
            written = ["param", *part.slots]
            _compiled(_update_of_many)(_fused(phase), self.weights, rows, views, self.dtype, written)
            return
        for name, rows in self._run(phase, part).items():
            if name == "param" or name in part.slots:
                part.scatter(rows, self.tensors[name], SLOTS.get(name, NUMBER))

    def _run(self, phase: Phase, part: Part) -> dict[str, Tensor]:
        """The outputs of a phase for a part."""
        name = phase.name
        if torch.compiler.is_compiling() and _fused(phase) in INPUTS:
            name = _fused(phase)
        return getattr(_phases, name)(self.weights, {row: self._input(row, part) for row in INPUTS[name]})

    def _input(self, name: str, part: Part) -> Tensor:
        if _is_stored(name, part):
            return part.gather(self.tensors[name], self.dtype, SLOTS.get(name, NUMBER))
        return self._filled(name, part) if name in SLOTS or name == "valid" else part.of_tensors(self.rows[name])

    def _filled(self, name: str, part: Part) -> Tensor:
        """Rows that no tensor stores: the valid places, or zeros for a slot that the part lacks."""
        if name == "valid":
            return part.valid(self.device)
        return torch.zeros((), dtype=self.dtype, device=self.device).expand(part.chunks, *row_shape(SLOTS[name]))

    def _views(self, phase: Phase, part: Part) -> dict[str, Tensor] | None:
        """The chunks of a large tensor for a compiled function, or None if the part does not use one."""
        if not self.compiled or _fused(phase) not in INPUTS or torch.compiler.is_compiling():
            return None
        if not isinstance(part, Block) or part.chunks < 2:
            return None
        views = {}
        for name in INPUTS[_fused(phase)]:
            if _is_stored(name, part):
                views[name] = part.view(self.tensors[name], SLOTS.get(name, NUMBER))
            elif name in SLOTS or name == "valid":
                views[name] = self._filled(name, part)
        if any(view is None for view in views.values()):
            return None
        for view in views.values():
            torch._dynamo.mark_dynamic(view, 0)
        return views

    def _rows_beside(self, phase: Phase, part: Part, views: Rows) -> dict[str, Tensor]:
        """The other inputs of a compiled function."""
        return {name: part.of_tensors(self.rows[name]) for name in INPUTS[_fused(phase)] if name not in views}


def _sizes(finite: Tensor | None, step: Tensor | None, lr: Tensor | None) -> Tensor:
    """Empty if the cell does not say its step sizes."""
    if finite is None or step is None or lr is None:
        return torch.zeros(0)
    return torch.where(finite > 0, step * lr, 0)


def _is_stored(name: str, part: Part) -> bool:
    """Whether the tensors of a part store an input."""
    return name in ("param", "grad") or name in part.slots


def _fused(phase: Phase) -> str:
    """The name of a phase in the form that a compiler turns into one loop."""
    return f"fused_{phase.name}"


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True)


def _sums_of_many(name: str, weights: Rows, rows: Rows, chunks: Rows, dtype: torch.dtype) -> dict[str, Tensor]:
    """Sums of a phase over many chunks of one tensor, in one pass."""
    outputs = getattr(_phases, name)(weights, {**rows, **_widened(chunks, dtype)})
    return {key: value.sum(0, keepdim=True) for key, value in outputs.items()}


def _update_of_many(
    name: str, weights: Rows, rows: Rows, chunks: Rows, dtype: torch.dtype, written: Iterable[str]
) -> None:
    """The update of many chunks of one tensor, in one pass and in place."""
    for key, value in getattr(_phases, name)(weights, {**rows, **_widened(chunks, dtype)}).items():
        if key in written:
            chunks[key].copy_(value)


def _widened(chunks: Rows, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in chunks.items()}
