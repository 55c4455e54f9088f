"""One step: gathers rows, runs the cell's phases over them, sums, and writes the results back."""

import functools
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from . import _phases
from ._phases import INPUTS, STATE
from ._rows import Block, NUMBER, Part, Plan, SLOTS

Rows = Mapping[str, Tensor]

_STATE_SIZES = [math.prod(shape) for shape in STATE.values()]

_WEIGHTS: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}


def weights(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The cell's weights and initial state, read once for a device and a dtype."""
    if (device, dtype) not in _WEIGHTS:
        file = pathlib.Path(__file__).with_name("weights.safetensors")
        _WEIGHTS[device, dtype] = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in load_file(file).items()
        }
    return _WEIGHTS[device, dtype]


def initial_state(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """What is kept of `recall` of a tensor before the first step: one vector, or nothing."""
    initial = weights(device, dtype)
    return {"recall": torch.cat([initial[f"initial.{name}"].reshape(-1) for name in STATE])} if STATE else {}


class Step:
    """One step over tensors of one device and one dtype of arithmetic.

    **Arguments:**

    - `plan`: how they are cut.
    - `tensors`: by `param`, `grad`, and each memory slot that they keep, in the order that the plan was made for.
    - `recalled`: the state of `recall` of each tensor.
    - `device`, `dtype`: of the arithmetic.
    - `compiled`: whether blocks are worked on by compiled functions.
    """

    def __init__(
        self,
        plan: Plan,
        tensors: Mapping[str, list[Tensor]],
        recalled: list[Tensor],
        device: torch.device,
        dtype: torch.dtype,
        compiled: bool,
    ):
        self.plan = plan
        self.device = device
        self.dtype = dtype
        self.compiled = compiled
        self.weights = weights(device, dtype)
        self.tensors = {name: [values[place] for place in plan.order] for name, values in tensors.items()}
        self.rows: dict[str, Tensor] = dict(plan.facts)
        """For each name a row for each tensor."""
        self.recalled = [recalled[place] for place in plan.order] if STATE else []
        if STATE:
            parts = torch.stack(self.recalled).split(_STATE_SIZES, dim=1)
            for (name, shape), part in zip(STATE.items(), parts, strict=True):
                self.rows[f"state.{name}"] = part.reshape(-1, *shape)

    def attend(self, step: Tensor, options: Mapping[str, list[float | Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
        """Moments and summaries. Returns whether all moments are finite, and this step's share in the network's sums,
        without waiting for the device.

        `options` holds a number for each parameter group under `lr`, `weight_decay` and `total`.
        """
        known = set(self.rows)
        self._sums("measure", self.plan.parts)
        finite = [torch.isfinite(rows).all() for name, rows in self.rows.items() if name not in known]
        self._sums("encode", self.plan.samples)
        self.rows["clock.step"] = self._number(step).expand(len(self.plan.order))
        for name, option in (("clock.total", "total"), ("hyper.lr", "lr"), ("hyper.weight_decay", "weight_decay")):
            of_groups = torch.stack([self._number(value) for value in options[option]])
            self.rows[name] = of_groups.index_select(0, self.plan.groups)
        shared = self._of_tensors("share") if "share" in INPUTS else {}
        return torch.stack(finite).all(), {name: rows.sum(0) for name, rows in shared.items()}

    def update(self, finite: Tensor, network: Mapping[str, list[Tensor]]) -> None:
        """Next parameters, memory and state; none of them changes where `finite` is not true.

        `network` holds the shares of all steps in each sum.
        """
        count = len(self.plan.order)
        self.rows["guard.finite"] = self._number(finite).expand(count)
        for name, shares in network.items():
            total = torch.stack([share.to(self.device, self.dtype) for share in shares]).sum(0)
            self.rows[name] = total.expand(count, *total.shape)
        if "recall" in INPUTS:
            self.rows.update(self._of_tensors("recall"))
        self._sums("probe", self.plan.samples)
        self._prepare("update")
        for part in self.plan.parts:
            self._update(part)
        if STATE:
            state = torch.cat([self.rows[f"state.{name}"].reshape(count, -1) for name in STATE], dim=1)
            torch._foreach_copy_(self.recalled, list(state.unbind(0)))  # pyright: ignore[reportPrivateImportUsage]

    def _number(self, value: float | Tensor) -> Tensor:
        if isinstance(value, Tensor):
            return value.to(self.device, self.dtype).reshape(())
        return torch.full((), float(value), dtype=self.dtype, device=self.device)

    def _of_tensors(self, phase: str) -> dict[str, Tensor]:
        """What a phase over tensors gives."""
        return getattr(_phases, phase)(self.weights, {row: self.rows[row] for row in INPUTS[phase]})

    def _prepare(self, phase: str) -> None:
        """Computes what a phase needs of each tensor."""
        if f"prepare_{phase}" in INPUTS:
            self.rows.update(self._of_tensors(f"prepare_{phase}"))

    def _sums(self, phase: str, parts: Iterable[Part]) -> None:
        """Runs a phase over all parts and keeps what it gives, summed for each tensor."""
        if phase not in INPUTS:
            return
        self._prepare(phase)
        sums: dict[str, list[Tensor]] = {}
        last = -1
        for part in parts:
            place = part.tensor if isinstance(part, Block) else -1
            for name, total in self._totals(phase, part).items():
                found = sums.setdefault(name, [])
                if place >= 0 and place == last:
                    found[-1] = found[-1] + total
                else:
                    found.append(total)
            last = place
        self.rows.update((name, torch.cat(totals)) for name, totals in sums.items())

    def _totals(self, phase: str, part: Part) -> dict[str, Tensor]:
        if phase == "measure":
            views = self._views(part, INPUTS["fused_measure"])
            if views is not None:
                return _compiled(_measure_whole)(self.weights, views, self.dtype)
        return {name: part.total(rows) for name, rows in self._run(phase, part).items()}

    def _update(self, part: Part) -> None:
        views = self._views(part, INPUTS["fused_update"])
        if views is not None:
            rows = {name: part.of_chunks(self.rows[name]) for name in INPUTS["fused_update"] if name not in views}
            written = [name for name in self.tensors if name != "grad"]
            _compiled(_update_whole)(self.weights, rows, views, written, self.dtype)
            return
        for name, rows in self._run("update", part).items():
            if name in self.tensors:
                part.scatter(rows, self.tensors[name], SLOTS.get(name, NUMBER))

    def _run(self, phase: str, part: Part) -> dict[str, Tensor]:
        """The rows that a phase makes of a part."""
        name = f"fused_{phase}" if torch.compiler.is_compiling() and f"fused_{phase}" in INPUTS else phase
        return getattr(_phases, name)(self.weights, {row: self._input(row, part) for row in INPUTS[name]})

    def _input(self, name: str, part: Part) -> Tensor:
        if name in self.tensors:
            return part.gather(self.tensors[name], self.dtype, SLOTS.get(name, NUMBER))
        return self._made(name, part) if name in SLOTS or name == "valid" else part.of_chunks(self.rows[name])

    def _made(self, name: str, part: Part) -> Tensor:
        """Rows of chunks that no tensor holds: which places are valid, and zeros for a slot that is not kept."""
        if name == "valid":
            return part.valid(self.device)
        return torch.zeros((), dtype=self.dtype, device=self.device).expand(part.chunks, *SLOTS[name].row)

    def _views(self, part: Part, names: Iterable[str]) -> dict[str, Tensor] | None:
        """The chunks of a large tensor for a compiled function; None for a part that is not worked on by one."""
        if not self.compiled or not isinstance(part, Block) or part.chunks < 2 or torch.compiler.is_compiling():
            return None
        views = {}
        for name in names:
            if name in self.tensors:
                views[name] = part.view(self.tensors[name], SLOTS.get(name, NUMBER))
            elif name in SLOTS or name == "valid":
                views[name] = self._made(name, part)
        if any(view is None for view in views.values()):
            return None
        for view in views.values():
            torch._dynamo.mark_dynamic(view, 0)
        return views


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True)


def _measure_whole(weights: Rows, chunks: Rows, dtype: torch.dtype) -> dict[str, Tensor]:
    """Moments of many chunks of one tensor, in one pass."""
    inputs = _widened(chunks, dtype)
    return {name: rows.sum(0, keepdim=True) for name, rows in _phases.fused_measure(weights, inputs).items()}


def _update_whole(weights: Rows, rows: Rows, chunks: Rows, written: list[str], dtype: torch.dtype) -> None:
    """The update of many chunks of one tensor, in one pass and in place."""
    inputs = {**rows, **_widened(chunks, dtype)}
    for name, value in _phases.fused_update(weights, inputs).items():
        if name in written:
            chunks[name].copy_(value)


def _widened(chunks: Rows, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in chunks.items()}
