"""The step by Triton kernels: few launches, whatever the number of tensors, and nothing that waits for the device."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime.errors import OutOfResources

from . import _kernels
from ._kernel_parts import add_sums, gather_sample, move_states, settle
from ._kernels import LANES, OPTIONS, ROWS, SUMS
from ._partition import Part, Partition
from ._parts import Facts, matrices_of, Shape
from ._phases import CHUNK_LENGTH, KERNELS, MEMORY, STATE
from ._plan import group_of, Phase
from ._precision import Precision
from ._rows import NUMBER, Pack, row_shape, SLOTS
from ._samples import ARRAYS, Samples
from ._shards import Sharding
from ._step import Bucket, PHASES
from ._tables import chunk_launches, Form, is_direct, Launch, Member, tile_launches
from ._tuning import choose, is_interpreted, Options

Rows = Mapping[str, Tensor]

DTYPES: dict[torch.dtype, Any] = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}
"""Dtypes of parameters and gradients that kernels read."""

_TENSORS = 128
"""Tensors that an instance of a kernel over tensors computes."""
_SUMMANDS = 1024
"""Sums of blocks that are added at once."""
_STEPS = 8
"""Blocks of which an instance of a sum over chunks adds one after the other."""
_BLOCKS: tuple[tuple[int, int], ...] = ((1024, 4), (2048, 8), (1024, 8), (512, 8))
"""Coordinates of a block of chunks, and warps that compute it."""
_LARGE_TILE = 128 * 64
"""Places of a tile that eight warps compute, where four do a smaller one."""

_WHOLE = all(phase.name in KERNELS or phase.rows == "tiles" for phase in PHASES)
"""Whether kernels compute every phase."""
_STATE_SIZE = sum(map(math.prod, STATE.values()))
_NETWORK = tuple(name for name in ROWS if group_of(name) == "network")


class Launcher:
    """The tables of a plan, and the numbers of its tensors on the device. It is kept from step to step.

    **Arguments:**

    - `partition`: of the tensors.
    - `facts`, `here`: those of `Partition`.
    - `device`: the device of the tensors.
    """

    def __init__(self, partition: Partition, facts: Sequence[Facts], here: Sequence[Shape], device: torch.device):
        self.order = order = partition.order
        """The place of each row's tensor among `facts`."""
        self.device = device
        self._guard = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
        """Triton launches on the current device."""
        self.tensors = len(order)
        self.groups = 1 + max((facts[place].group for place in order), default=0)
        self.group = partition.groups.to(torch.int32)
        self.slots = [partition.kinds[place].slots for place in order]
        self.matrices = [
            matrices_of(facts[place], here[place])
            if partition.kinds[place].is_tiled and math.prod(here[place])
            else None
            for place in order
        ]
        self.rows = self._numbers(_height(ROWS), self.tensors)
        self.options = self._numbers(_height(OPTIONS), self.groups)
        self.checks = self._numbers(self.tensors)
        lanes = {name: LANES.get(name) or [0.0] for name in KERNELS}
        self.lanes = {name: torch.tensor(values, dtype=torch.float32, device=device) for name, values in lanes.items()}
        self.views = {name: _of_tensors(self.rows, place) for name, place in ROWS.items()}
        """The rows of tensors as phases name them, but for options."""
        for name, values in partition.shape.items():
            if name in ROWS:
                self.views[name].copy_(values)
        self.pointers = torch.zeros(len(MEMORY) + 3, self.tensors, dtype=torch.int64, device=device)
        self.samples = Samples(partition, [here[place] for place in order], device)
        self.tiles_fit = True
        """Whether tiles fit on the chip."""
        self._indirect: list[tuple[str, int]] = []
        self._layout: list[Any] = []
        self._places: list[int] = []
        self._alignment: np.ndarray | None = None
        self._given: list[list[float]] = []
        self._reserves: dict[int, Tensor] = {}
        self._kept: list[Tensor] = []
        """What graphs that were captured read each time."""

    def _numbers(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float32, device=self.device)

    def reads(self, tensors: Mapping[str, list[Tensor]]) -> bool:
        """Whether kernels know the dtypes of these parameters and gradients."""
        return all(array.dtype in DTYPES for name in ("param", "grad") for array in tensors[name])

    def bucket(
        self,
        partition: Partition,
        tensors: Mapping[str, list[Tensor]],
        states: list[Tensor],
        dtype: torch.dtype,
        precision: Precision,
        sharding: Sharding | None,
    ) -> "KernelBucket":
        """The bucket of a step."""
        return KernelBucket(self, partition, tensors, states, self.device, dtype, precision, sharding)

    def refresh(self, tensors: dict[str, list[Tensor]], states: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Takes the tensors of this step. Only what has moved is written to the device.

        Tensors that kernels cannot read where they lie are replaced by copies in `tensors`.

        **Returns:**

        Pairs of a parameter and its copy, which is to be written back.
        """
        if self.device.type == "cuda":
            self._make_reserves()
        params, grads = tensors["param"], tensors["grad"]
        layout = [(p.stride(), g.stride(), p.dtype, g.dtype) for p, g in zip(params, grads, strict=True)]
        has_changed = layout != self._layout
        if has_changed:
            self._indirect = [
                (name, row)
                for row, member in enumerate(self._members(tensors))
                if not is_direct(member)
                for name in ("param", "grad")
            ]
        copies = []
        for name, row in self._indirect:
            before = tensors[name][row]
            tensors[name][row] = (
                before.contiguous() if name == "grad" else before.clone(memory_format=torch.contiguous_format)
            )
            if name == "param":
                copies.append((before, tensors[name][row]))
        memory = [tensors[f"memory.{slot.name}"] for slot in MEMORY]
        places = [array.data_ptr() for own in (params, grads, *memory, states or params) for array in own]
        if has_changed or places != self._places:
            values = np.array(places, np.int64).reshape(len(MEMORY) + 3, self.tensors)
            alignment = values % 16
            if has_changed or self._alignment is None or not np.array_equal(alignment, self._alignment):
                self._plan_launches(tensors)
            self._upload(values, self.pointers)
            self._layout, self._places, self._alignment = layout, places, alignment
        return copies

    def set_options(self, options: Mapping[str, Sequence[float | Tensor]]) -> None:
        """Writes what users choose for each group to the device, if it has changed."""
        given = [[0.0 if isinstance(value, Tensor) else float(value) for value in options[name]] for name in OPTIONS]
        if given != self._given:
            self._upload(np.array(given, np.float32)[:, : self.groups], self.options)
            self._given = given
        for row, name in enumerate(OPTIONS):
            for group, value in enumerate(options[name][: self.groups]):
                if isinstance(value, Tensor):
                    self.options[row, group].copy_(value.reshape(()))

    def _upload(self, values: np.ndarray, target: Tensor) -> None:
        source = torch.from_numpy(np.ascontiguousarray(values))
        if self.device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
            source = source.pin_memory()
        elif self.device.type == "cuda":
            reserve = self._reserves.pop(id(target), None)
            if reserve is None:
                raise RuntimeError(
                    "tensors have moved again while CUDA graphs are captured; take a step outside of a graph before "
                    "another one is captured"
                )
            source = reserve.copy_(source)
            self._kept.append(source)
        target.copy_(source, non_blocking=True)

    def _make_reserves(self) -> None:
        """Memory for a graph that is captured later: a graph reads it each time, and none may be allocated then."""
        if len(self._reserves) < 2 and not torch.cuda.is_current_stream_capturing():
            for target in (self.pointers, self.options):
                if id(target) not in self._reserves:
                    self._reserves[id(target)] = torch.empty_like(target, device="cpu", pin_memory=True)

    def _members(self, tensors: Mapping[str, list[Tensor]]) -> list[Member]:
        return [
            Member(
                row,
                tensors["param"][row],
                tensors["grad"][row],
                {name: tensors[name][row] for name in self.slots[row]},
                self.matrices[row],
            )
            for row in range(self.tensors)
        ]

    def _plan_launches(self, tensors: Mapping[str, list[Tensor]]) -> None:
        members = [member for member in self._members(tensors) if member.param.numel()]
        untiled = [member for member in members if member.matrices is None]
        self.sizes = self._sizes(untiled or members)
        self.measured = chunk_launches(members, _chunks(_BLOCKS[0][0]) * _STEPS, self.device, updates=False)
        self.updated = chunk_launches(untiled, self.sizes["CHUNKS"], self.device, updates=True)
        self.tiled = tile_launches([member for member in members if member.matrices is not None], self.device)
        ranges = np.zeros((2, self.tensors), np.int32)
        for launch in self.measured:
            for row, span in launch.ranges.items():
                ranges[:, row] = span
        self.ranges = torch.from_numpy(ranges).to(self.device)
        self.blocks = max(sum(launch.instances for launch in self.measured), 1)
        height = max(sum(math.prod(ROWS[name][1:]) for name in names) for names in SUMS.values())
        self.partials = self._numbers(height, self.blocks)
        self.samples.plan(members, tensors)

    def _sizes(self, members: Sequence[Member]) -> Options:
        """Sizes of a block of chunks in the phase that writes them."""
        (name,) = (phase.name for phase in PHASES if phase.rows == "chunks" and phase.reduce is None)
        candidates = [{"CHUNKS": _chunks(size), "num_warps": warps} for size, warps in _BLOCKS]
        if not members:
            # This process holds nothing.
            return candidates[0]
        (launch, *_) = chunk_launches(members[:1], candidates[0]["CHUNKS"], self.device, updates=True)
        arguments = {**self._tables(launch, name), **self._common()}
        with self._guard:
            return choose(getattr(_kernels, name), arguments, _constants(launch.form), candidates)

    def _common(self) -> dict[str, Any]:
        """Arguments of all kernels."""
        return {
            "pointers": self.pointers,
            "rows": self.rows,
            "options": self.options,
            "group": self.group,
            "tensors": self.tensors,
            "groups": self.groups,
        }

    def _tables(self, launch: Launch, name: str) -> dict[str, Any]:
        lanes = self.lanes.get(name, self.checks)
        return {"table": launch.table, "blocks": launch.blocks, "starts": launch.starts, "lanes": lanes}

    def run_tensors(self, name: str) -> None:
        """Runs a phase over tensors."""
        blocks = -(-self.tensors // _TENSORS)
        self._start(getattr(_kernels, name), blocks, **self._common(), BLOCK=_TENSORS, num_warps=4)

    def _start(self, kernel: Any, instances: int, **arguments: Any) -> None:
        with self._guard:
            kernel[(instances,)](**arguments)

    def sum_chunks(self, name: str, step: Tensor) -> None:
        """Runs a phase whose outputs are summed over the chunks of each tensor."""
        for launch in self.measured:
            self._start(
                getattr(_kernels, name),
                launch.instances,
                **self._tables(launch, name),
                **self._common(),
                partials=self.partials,
                offset=launch.first,
                count=self.blocks,
                **_constants(launch.form),
                CHUNKS=_chunks(_BLOCKS[0][0]),
                STEPS=_STEPS,
                num_warps=_BLOCKS[0][1],
            )
        self._start(
            add_sums,
            self.tensors,
            partials=self.partials,
            ranges=self.ranges,
            rows=self.rows,
            checks=self.checks,
            step=step,
            tensors=self.tensors,
            count=self.blocks,
            first=ROWS[SUMS[name][0]][0],
            SUMS=sum(math.prod(ROWS[output][1:]) for output in SUMS[name]),
            DECIDES=True,
            BLOCK=_SUMMANDS,
            num_warps=4,
        )

    def gather(self, name: str, pack: Pack) -> Tensor:
        """The rows of an array in the places of sampled chunks, with zeros where there is no coordinate or no slot."""
        slot = SLOTS.get(name, NUMBER)
        sample = torch.empty(pack.chunks, *row_shape(slot), dtype=torch.float32, device=self.device)
        for dtype, instances, arguments in self.samples.launches(name, pack):
            self._start(
                gather_sample,
                instances,
                **arguments,
                pointers=self.pointers,
                sample=sample,
                tensors=self.tensors,
                DTYPE=DTYPES[dtype],
                num_warps=4,
            )
        return sample

    def read_states(self) -> Tensor:
        """The states of `recall`, a row per tensor."""
        states = torch.empty(self.tensors, _STATE_SIZE, dtype=torch.float32, device=self.device)
        self._move_states(states, False)
        return states

    def write_states(self, states: Tensor) -> None:
        """Stores the states of `recall`."""
        self._move_states(states, True)

    def _move_states(self, states: Tensor, write: bool) -> None:
        arguments = {"pointers": self.pointers, "states": states, "tensors": self.tensors}
        self._start(move_states, self.tensors, **arguments, ROW=len(ARRAYS), SIZE=_STATE_SIZE, WRITE=write, num_warps=4)

    def settle(self, step: Tensor, skipped: Tensor) -> None:
        """Sums over the network, decides whether the step is taken, and counts it."""
        self._start(
            settle,
            1,
            rows=self.rows,
            checks=self.checks,
            step=step,
            skipped=skipped,
            tensors=self.tensors,
            first=ROWS[_NETWORK[0]][0] if _NETWORK else 0,
            SUMS=sum(math.prod(ROWS[name][1:]) for name in _NETWORK),
            BLOCK=_SUMMANDS,
            num_warps=4,
        )

    def update_chunks(self, name: str) -> None:
        """Runs a phase that writes the chunks of tensors without tiles."""
        for launch in self.updated:
            arguments = {**self._tables(launch, name), **self._common(), **_constants(launch.form), **self.sizes}
            self._start(getattr(_kernels, name), launch.instances, **arguments)

    def update_tiles(self, precision: str, part: int = 0, between: Tensor | None = None) -> bool:
        """Runs the phases over tiles. Returns False, with nothing changed, where tiles do not fit on the chip.

        **Arguments:**

        - `precision`: of the factors of products.
        - `part`: 1 for the phases up to the direction alone, 2 for those from it on, 0 for all.
        - `between`: the directions, if the phases run apart. At first it holds the side of each tile.
        """
        if not self.tiles_fit:
            return False
        between = self.partials if between is None else between
        calls = []
        for launch in self.tiled:
            height, width = launch.form.tile
            fixed = {**_constants(launch.form), "HEIGHT": height, "WIDTH": width, "PRECISION": precision, "PART": part}
            arguments = {**self._tables(launch, "tiles"), **self._common(), "between": between}
            warps = [{"num_warps": 8 if height * width >= _LARGE_TILE else 4}]
            try:
                with self._guard:
                    chosen = choose(_kernels.tiles, arguments, fixed, warps)
            except OutOfResources:
                self.tiles_fit = False
                return False
            calls.append((launch.instances, {**arguments, **fixed, **chosen}))
        for count, arguments in calls:
            self._start(_kernels.tiles, count, **arguments)
        return True


class KernelBucket(Bucket):
    """A bucket whose phases kernels compute. A phase without a kernel runs as in any other bucket.

    **Arguments:**

    - `launcher`: the tables of the plan.
    - The others are those of `Bucket`.
    """

    def __init__(
        self,
        launcher: Launcher,
        partition: Partition,
        tensors: Mapping[str, list[Tensor]],
        states: list[Tensor],
        device: torch.device,
        dtype: torch.dtype,
        precision: Precision,
        sharding: Sharding | None = None,
    ):
        self.launcher = launcher
        self.needs_rows = not _WHOLE or kernel_precision(precision) is None
        """Whether a phase without a kernel needs the numbers of tensors by name."""
        super().__init__(partition, tensors, states, device, dtype, precision, False, False, sharding)

    def begin(self, step: Tensor, options: Mapping[str, list[float | Tensor]]) -> None:
        self.is_taken = None
        self.step = step.to(self.device)
        # Kernels know the addresses of what this holds.
        self._read = {name: [*values] for name, values in self.tensors.items()}
        self._copies = self.launcher.refresh(self._read, self.states)
        self.launcher.set_options(options)
        self.rows = {**self.partition.shape, **self.launcher.views}
        if self.needs_rows:
            self._name_options()
            self._split_states()

    def _name_options(self) -> None:
        for name, (row, *_) in OPTIONS.items():
            self.rows[name] = self.launcher.options[row].index_select(0, self.partition.groups)

    def _read_states(self) -> Tensor:
        return self.launcher.read_states()

    def _write_states(self, rows: Tensor) -> None:
        self.launcher.write_states(rows)

    def _samples(self) -> Sequence[Part]:
        return self.launcher.samples.packs

    def _input(self, name: str, part: Part) -> Tensor:
        # Kernels compute all phases over chunks but those that read a sample.
        if isinstance(part, Pack) and name in ARRAYS:
            return self.launcher.gather(name, part)
        return super()._input(name, part)

    @property
    def is_alone(self) -> bool:
        return self.sharding is None

    def take(self, skipped: Tensor) -> None:
        is_settled = False
        for phase in PHASES:
            if not is_settled and {"finite", "network"} & {*phase.reads}:
                self.launcher.settle(self.step, skipped)
                is_settled = True
            if phase.rows != "tiles":
                self.run(phase)
        tiles = [phase for phase in PHASES if phase.rows == "tiles"]
        if tiles:
            self.run_tiles(tiles)
        self.store_state()

    def run(self, phase: Phase) -> dict[str, Tensor]:
        if phase.name not in KERNELS:
            outputs = super().run(phase)
            self._keep(outputs)
            return outputs
        if phase.rows == "tensors":
            self.launcher.run_tensors(phase.name)
        elif phase.reduce == "tensor":
            self.launcher.sum_chunks(phase.name, self.step)
            if self.sharding is not None:
                own = {name: self.launcher.views[name] for name in SUMS[phase.name]}
                self._keep(self.sharding.sums(own, self.partition.places))
        else:
            self.launcher.update_chunks(phase.name)
        return {name: self.launcher.views[name] for name in ROWS if group_of(name) in phase.gives}

    def _keep(self, outputs: Rows) -> None:
        """Writes outputs to where kernels find them."""
        for name, values in outputs.items():
            if name in self.launcher.views:
                self.rows[name] = self.launcher.views[name].copy_(values)

    def run_tiles(self, phases: Sequence[Phase]) -> None:
        precision = kernel_precision(self.precision)
        if precision is None or not self.launcher.update_tiles(precision):
            self._name_options()
            # Copies are written back later, so that they must be what is updated.
            own, self.tensors = self.tensors, self._read
            super().run_tiles(phases)
            self.tensors = own

    def receive(self, terms: Sequence[Rows]) -> None:
        super().receive(terms)
        self._keep({name: self.rows[name] for name in terms[0]})

    def decide(self, finite: Tensor, is_taken: bool | None) -> None:
        super().decide(finite, is_taken)
        self._keep({"finite": self.rows["finite"]})

    def sizes(self) -> Callable[[], Tensor]:
        return self._sizes

    def _sizes(self) -> Tensor:
        self._name_options()
        return super().sizes()()

    def store_state(self) -> None:
        for param, copy in self._copies:
            param.copy_(copy)
        self._read, self._copies = {}, []
        super().store_state()


def kernel_precision(precision: Precision) -> str | None:
    """How kernels say a precision of products, or None where they have none.

    A chip has no unit for products of float32 in float32, and a loop of additions is too long to compile.
    """
    if is_interpreted():
        return {"bfloat16": "rounded"}.get(precision, "ieee")
    return {"bfloat16": "bfloat16", "tf32": "tf32"}.get(precision)


def _height(places: Mapping[str, tuple[int, ...]]) -> int:
    return max((first + math.prod(shape) for first, *shape in places.values()), default=1)


def _of_tensors(rows: Tensor, place: Sequence[int]) -> Tensor:
    """Some rows of numbers as an array with a row per tensor."""
    first, *shape = place
    return rows[first : first + math.prod(shape)].T.view(rows.shape[1], *shape)


def _chunks(coordinates: int) -> int:
    return max(coordinates // CHUNK_LENGTH, 1)


def _constants(form: Form) -> dict[str, Any]:
    return {"PARAM": DTYPES[form.param], "GRAD": DTYPES[form.grad], "SLOTS": form.slots, "PLAIN": form.plain}
