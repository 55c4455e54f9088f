"""One step: runs the phases of the plan over rows, sums their outputs, and writes the results back."""

import contextlib
import functools
import itertools
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from ._rows import Block, FlatPack, NUMBER, row_shape, SLOTS
from ._shards import Sharding
from ._tiles import TileBlock

Rows = Mapping[str, Tensor]

PHASES = tuple(phase for phase in PLAN if phase.name in INPUTS)
"""The phases of this cell, in order."""
_RUNS = tuple((rows, tuple(phases)) for rows, phases in itertools.groupby(PHASES, lambda phase: phase.rows))
"""Consecutive phases over rows of the same kind."""

_REASON = 300
"""The length of what is said of an error of torch's compiler, which may be pages."""
_STATE_SIZES = [math.prod(shape) for shape in STATE.values()]

_WEIGHTS: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}


def weights(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The cell's weights and initial state, read once per device and dtype.

    In `FakeTensorMode` they are made fake, and are not kept.
    """
    fakes = _fake_modes()
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


def _fake_modes() -> list[FakeTensorMode]:
    # A compiler that traces has a mode of its own, which is not in force where this is called.
    modes = [] if torch.compiler.is_compiling() else _get_current_dispatch_mode_stack()
    return [mode for mode in modes if isinstance(mode, FakeTensorMode)]


def is_fake() -> bool:
    """Whether tensors that are made here have no numbers."""
    return bool(_fake_modes())


def initial_state(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The state of `recall` before the first step: one vector per tensor, or nothing."""
    initial = weights(device, dtype)
    return {"recall": torch.cat([initial[f"initial.{name}"].reshape(-1) for name in STATE])} if STATE else {}


def take_step(
    buckets: "Sequence[Bucket]", step: Tensor, skipped: Tensor, options: Mapping[str, list[float | Tensor]]
) -> None:
    """Runs every phase of the plan, in order, without waiting for the device.

    If a gradient is not finite, nothing changes but `skipped`.

    **Arguments:**

    - `buckets`: all tensors that have a gradient.
    - `step`: steps taken before this one. It is counted up.
    - `skipped`: steps refused before this one. It is counted up.
    - `options`: a number for each parameter group, by the names of rows, such as `hyper.lr`.
    """
    # One context for the whole step, because small networks would wait for many.
    kinds = sorted({bucket.device.type for bucket in buckets})
    _with_own_arithmetic(kinds, lambda: _take_step(buckets, step, skipped, options))


def _with_own_arithmetic(device_types: Sequence[str], function: Callable[[], None]) -> None:
    """Calls a function where neither autocast nor a precision around it matters."""
    if not device_types:
        return function()
    with torch.autocast(device_types[0], enabled=False), matmul_precision("float32", device_types[0]):
        return _with_own_arithmetic(device_types[1:], function)


def _take_step(
    buckets: "Sequence[Bucket]", step: Tensor, skipped: Tensor, options: Mapping[str, list[float | Tensor]]
) -> None:
    if len(buckets) == 1 and buckets[0].is_alone:
        buckets[0].begin(step, options)
        buckets[0].take(skipped)
        return
    finite = _run_all(buckets, step, options)
    step.add_(finite)
    skipped.add_(~finite)


def _run_all(buckets: "Sequence[Bucket]", step: Tensor, options: Mapping[str, list[float | Tensor]]) -> Tensor:
    """Runs all phases. Returns whether the step was taken."""
    finite = torch.ones((), dtype=torch.bool, device=step.device)
    for bucket in buckets:
        bucket.begin(step, options)
    for rows, phases in _RUNS:
        if all(bucket.is_refused for bucket in buckets):
            return finite
        if rows != "tensors" and not any(phase.reduce for phase in phases):
            for bucket in buckets:
                bucket.try_compiled()
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
        # On a CPU nothing must be waited for.
        can_look = finite.is_cpu and all(bucket.can_look for bucket in buckets)
        for bucket in buckets:
            bucket.decide(finite, bool(finite) if can_look else None)
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
    - `small`: whether one thread multiplies matrices.
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
        small: bool,
        sharding: Sharding | None = None,
    ):
        self.partition = partition
        self.sharding = sharding
        self.held = tensors
        self.device = device
        self.dtype = dtype
        self.compiled = compiled
        self.small = small
        self.is_traced = torch.compiler.is_compiling()
        self.can_look = device.type == "cpu" and not self.is_traced and not is_fake()
        """Whether numbers can be read without waiting for them."""
        self.is_tried = False
        """Whether compiled functions have been tried."""
        self.is_taken: bool | None = None
        """Whether this step is taken, or None if that is not known while it is computed."""
        self.precision: Precision = precision
        narrow = torch.bfloat16 if precision == "bfloat16" else dtype
        self.weights = {**weights(device, dtype), "products": torch.empty(0, dtype=narrow, device=device)}
        own = tensors if sharding is None else sharding.gather(tensors, self._is_kept)
        self.tensors = {name: [values[place] for place in partition.order] for name, values in own.items()}
        self.rows: dict[str, Tensor] = {}
        """Inputs and outputs of phases with a row per tensor, by name."""
        self.next_state: dict[str, Tensor] = {}
        self.states = [states[place] for place in partition.order] if STATE else []
        self._known_views: dict[tuple[str, Part], Tensor | FlatPack | None] = {}
        """Views of parameters and memory, for rows of blocks and packs."""
        self._grad_views: dict[tuple[str, Part], Tensor | FlatPack | None] = {}
        """Views of gradients."""
        self._rows_of: dict[str, _RowsOf] = {}
        """The row of each tensor that has blocks, in what has a row per tensor."""
        self._known_inputs: dict[tuple[str, Part], dict[str, Tensor]] = {}
        """Inputs of functions for blocks, without gradients."""
        self._chosen: tuple[list[list[float | Tensor]], list[Tensor]] = [], []
        """The user's options of the last step, and their rows."""

    @property
    def is_alone(self) -> bool:
        """Whether the bucket runs a step by itself where there is no other one."""
        return False

    def take(self, skipped: Tensor) -> None:
        """Runs all phases, and counts the step, if the bucket is alone."""
        raise NotImplementedError

    def receive_gradients(self, grads: Sequence[Tensor]) -> None:
        """Takes the gradients of another step, in the order of the constructor's lists."""
        self.tensors["grad"] = [grads[place] for place in self.partition.order]

    def release_gradients(self) -> None:
        """Forgets the gradients, so that others may free them."""
        self.tensors["grad"] = []
        self._grad_views = {}
        self.held = {}

    def begin(self, step: Tensor, options: Mapping[str, list[float | Tensor]]) -> None:
        """Sets the clock, the user's options and the state."""
        self.is_taken = None
        self.rows = dict(self.partition.shape)
        self.rows["clock.step"] = self._number(step).expand(len(self.partition.order))
        self.rows.update(zip(options, self._options(list(options.values())), strict=True))
        self._split_states()

    def _split_states(self) -> None:
        """Names the parts of the state."""
        if STATE:
            columns = self._read_states().split(_STATE_SIZES, dim=1)
            for (name, shape), column in zip(STATE.items(), columns, strict=True):
                self.rows[f"state.{name}"] = column.reshape(-1, *shape)

    def _read_states(self) -> Tensor:
        """The state of each tensor, a row per tensor."""
        return torch.stack(self.states)

    def _write_states(self, rows: Tensor) -> None:
        torch._foreach_copy_(self.states, list(rows.unbind(0)))  # pyright: ignore[reportPrivateImportUsage]

    def _options(self, values: list[list[float | Tensor]]) -> list[Tensor]:
        """Rows of options, which are given per group."""
        if self.is_traced or any(isinstance(value, Tensor) for each in values for value in each):
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
        self._prepare(phase)
        if phase.rows == "tensors":
            outputs = self._of_tensors(phase.name)
        elif phase.reduce == "tensor":
            outputs = self._sums(phase)
            if self.sharding is not None:
                outputs = self.sharding.sums(outputs, self.partition.places)
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
        alone = one_thread() if self.small else contextlib.nullcontext()
        with alone, matmul_precision(self.precision, self.device.type):
            for block in self.partition.tiles:
                self._run_block(phases, block)

    def _run_block(self, phases: Sequence[Phase], block: TileBlock) -> None:
        rows: dict[str, Tensor] = {}
        carried: dict[str, Tensor] = {}
        for phase in phases:
            form = self._form(phase)
            for name in INPUTS[form]:
                if name not in rows:
                    rows[name] = self._tiles(name, block)
            outputs = getattr(_phases, form)(self.weights, {name: rows[name] for name in INPUTS[form]})
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

    @property
    def is_refused(self) -> bool:
        """Whether it is known that nothing changes in this step."""
        return self.is_taken is not None and not self.is_taken

    def decide(self, finite: Tensor, is_taken: bool | None) -> None:
        """Stores whether all gradients are finite; if not, the step is refused."""
        self.is_taken = is_taken
        self.rows["finite"] = self._number(finite).expand(len(self.partition.order))

    def sizes(self) -> Callable[[], Tensor]:
        """Computes the step size of each tensor in this step, in the order of the partition."""
        rows = map(self.rows.get, ("finite", "context.step", "hyper.lr"))
        return functools.partial(_sizes, len(self.partition.order), *rows)

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
        if self.next_state:
            count = len(self.partition.order)
            state = torch.cat([self.next_state[f"state.{name}"].reshape(count, -1) for name in STATE], dim=1)
            self._write_states(state)

    def _number(self, value: float | Tensor) -> Tensor:
        if isinstance(value, Tensor):
            return value.to(self.device, self.dtype).reshape(())
        return torch.full((), float(value), dtype=self.dtype, device=self.device)

    def _of_tensors(self, name: str) -> dict[str, Tensor]:
        """The outputs of a function over tensors."""
        return getattr(_phases, name)(self.weights, {row: self.rows[row] for row in INPUTS[name]})

    def _prepare(self, phase: Phase) -> None:
        """Computes what a phase over chunks needs once per tensor."""
        for form in {self._form(phase), phase.name} if self.compiled else {self._form(phase)}:
            name = f"prepare_{form.removeprefix('fused_')}"
            if name in INPUTS:
                self.rows.update(self._of_tensors(name))
        for name in INPUTS[self._form(phase)]:
            if name in self._rows_of:
                self._rows_of[name].receive(self.rows[name])

    def _form(self, phase: Phase) -> str:
        """The function for packs, tiles and blocks without a compiled function."""
        if self.is_traced and _fused(phase) in INPUTS:
            return _fused(phase)
        return f"taken_{phase.name}" if self.is_taken and f"taken_{phase.name}" in INPUTS else phase.name

    def _sums(self, phase: Phase) -> dict[str, Tensor]:
        """The outputs of a phase over chunks, summed for each tensor."""
        sums: dict[str, list[Tensor]] = {}
        last = -1
        for part in self._samples() if phase.rows == "sample" else self.partition.parts:
            place = part.tensor if isinstance(part, Block) else -1
            for name, total in self._totals(phase, part).items():
                totals = sums.setdefault(name, [])
                if place >= 0 and place == last:
                    totals[-1] = totals[-1] + total
                else:
                    totals.append(total)
            last = place
        return {name: torch.cat(totals) for name, totals in sums.items()}

    def _samples(self) -> Sequence[Part]:
        """The sampled chunks of all tensors."""
        return self.partition.samples

    def _totals(self, phase: Phase, part: Part) -> dict[str, Tensor]:
        views = self._views(phase, part)
        if views is not None:
            rows = self._rows_beside(phase, part, views)
            return _call(_sums_of_many, _fused(phase), self.weights, rows, views, self.dtype)
        return {name: part.total(rows) for name, rows in self._run(phase, part).items()}

    def _update(self, phase: Phase, part: Part) -> None:
        views = self._views(phase, part)
        if views is not None:
            rows = self._rows_beside(phase, part, views)
            self._call_update(phase, part, rows, views)
            return
        for name, rows in self._run(phase, part).items():
            if name == "param" or name in part.slots:
                view = self._view(name, part)
                if isinstance(view, Tensor):
                    view.copy_(rows if rows.shape == view.shape else rows.view(view.shape))
                elif view is not None:
                    view.scatter(rows)
                else:
                    part.scatter(rows, self.tensors[name], SLOTS.get(name, NUMBER))

    def _call_update(self, phase: Phase, part: Part, rows: Rows, views: Rows) -> None:
        _call(_update_of_many, _fused(phase), self.weights, rows, views, self.dtype, ["param", *part.slots])

    def try_compiled(self) -> None:
        """Compiles what writes before anything is written, on copies of two chunks of each kind of tensor.

        **Raises:**

        `CompilationError` if that fails.
        """
        for phase in PHASES:
            if self.is_tried or not self.compiled or phase.rows != "chunks" or phase.reduce:
                continue
            self._prepare(phase)
            kinds: set[tuple[str, ...]] = set()
            for part in self.partition.untiled:
                views = None if part.slots in kinds else self._views(phase, part)
                if views is not None:
                    kinds.add(part.slots)
                    copies = {name: view[:2].clone() for name, view in views.items()}
                    self._call_update(phase, part, self._rows_beside(phase, part, views), _dynamic(copies))
        self.is_tried = True

    def _run(self, phase: Phase, part: Part) -> dict[str, Tensor]:
        """The outputs of a phase for a part."""
        name = self._form(phase)
        return getattr(_phases, name)(self.weights, self._inputs(name, part))

    def _inputs(self, name: str, part: Part) -> dict[str, Tensor]:
        """The inputs of a function for a part. Those that are views stay the same from step to step."""
        if (name, part) in self._known_inputs:
            return {**self._known_inputs[name, part], "grad": self._input("grad", part)}
        inputs = {row: self._input(row, part) for row in INPUTS[name]}
        if isinstance(part, Block) and not self.is_traced and "grad" in inputs:
            others = {row: value for row, value in inputs.items() if row != "grad"}
            stored = [row for row in others if row not in self.rows]
            if all(_is_stored(row, part) and others[row] is self._view(row, part) for row in stored):
                self._known_inputs[name, part] = others
        return inputs

    def _input(self, name: str, part: Part) -> Tensor:
        if _is_stored(name, part):
            view = self._view(name, part)
            if view is not None:
                return view.to(self.dtype) if isinstance(view, Tensor) else view.gather(self.dtype)
            return part.gather(self.tensors[name], self.dtype, SLOTS.get(name, NUMBER))
        return self._filled(name, part) if name in SLOTS or name == "valid" else self._of_part(name, part)

    def _view(self, name: str, part: Part) -> Tensor | FlatPack | None:
        """The rows of a part as views of its tensors, or None if views are impossible."""
        if self.is_traced:
            return None
        views = self._grad_views if name == "grad" else self._known_views
        if (name, part) not in views:
            view = part.view if isinstance(part, Block) else part.flat
            views[name, part] = view(self.tensors[name], SLOTS.get(name, NUMBER))
        return views[name, part]

    def _of_part(self, name: str, part: Part) -> Tensor:
        """For each chunk the row of its tensor, or a row that broadcasts over the chunks."""
        rows = self.rows[name]
        if self.is_traced or not isinstance(part, Block):
            return part.of_tensors(rows)
        if name not in self._rows_of:
            self._rows_of[name] = _RowsOf(rows)
        return self._rows_of[name].of(part.tensor, rows)

    def _filled(self, name: str, part: Part) -> Tensor:
        """Rows that no tensor stores: the valid places, or zeros for a slot that the part lacks."""
        if name == "valid":
            return part.valid(self.device)
        return torch.zeros((), dtype=self.dtype, device=self.device).expand(part.chunks, *row_shape(SLOTS[name]))

    def _views(self, phase: Phase, part: Part) -> dict[str, Tensor] | None:
        """The chunks of a large tensor for a compiled function, or None if the part does not use one."""
        if not self.compiled or _fused(phase) not in INPUTS or self.is_traced:
            return None
        if not isinstance(part, Block) or part.chunks < 2:
            return None
        views: dict[str, Any] = {}
        for name in INPUTS[_fused(phase)]:
            if _is_stored(name, part):
                views[name] = self._view(name, part)
            elif name in SLOTS or name == "valid":
                views[name] = self._filled(name, part)
        if any(view is None for view in views.values()):
            return None
        return _dynamic(views)

    def _rows_beside(self, phase: Phase, part: Part, views: Rows) -> dict[str, Tensor]:
        """The other inputs of a compiled function."""
        return {name: self._of_part(name, part) for name in INPUTS[_fused(phase)] if name not in views}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Products of small matrices would wake other threads, which may have to wait for a processor."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class CompilationError(RuntimeError):
    """A compiled function cannot be made. Nothing has been written."""


class _RowsOf:
    """Rows that blocks read, in a place of their own, of which views need not be made in each step."""

    def __init__(self, rows: Tensor):
        self.copy = torch.empty_like(rows, memory_format=torch.contiguous_format)
        self.source: Tensor | None = None
        self.views: dict[int, Tensor] = {}

    def receive(self, rows: Tensor) -> None:
        """Takes the rows of a step."""
        if self.source is not rows:
            self.copy.copy_(rows)
            self.source = rows

    def of(self, tensor: int, rows: Tensor) -> Tensor:
        """The row of a tensor, which has the shape of a block of rows."""
        self.receive(rows)
        if tensor not in self.views:
            self.views[tensor] = self.copy[tensor : tensor + 1]
        return self.views[tensor]


def _sizes(count: int, finite: Tensor | None, step: Tensor | None, lr: Tensor | None) -> Tensor:
    """0 if the step was refused before there were any."""
    if finite is None or step is None or lr is None:
        return torch.zeros(count, device="cpu")
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


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function as one that is compiled for these arguments.

    **Raises:**

    `CompilationError` if it cannot be compiled. Then it has not run.
    """
    # Importing this takes long where nothing is compiled.
    from torch._dynamo.exc import TorchDynamoException

    try:
        return _compiled(function)(*arguments)
    except TorchDynamoException as error:
        reason = " ".join(str(error).partition("\n\n")[0].split())[:_REASON]
        raise CompilationError(f"torch.compile fails on the update of large tensors ({reason})") from error


def _dynamic(chunks: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same chunks, so marked that one compiled function is for any number of them."""
    for value in chunks.values():
        torch._dynamo.mark_dynamic(value, 0)
    return chunks


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
