"""The kernel of a phase over all chunks."""

import math
from collections.abc import Mapping

import numpy as np

from ....program import CompiledCell, Program, Value
from ....step import group_of, MemorySlot, OF_PARTS, Phase
from ._kernel import BEGIN, Kernel, KINDS, TABLES
from ._places import is_sum, Places
from ._symbols import Array, Grid, Label, NoKernelError, Term

_TAKEN = ("block", "entry", "row", "number", "first", "base", "places", "valid", "chunk", "is_chunk", "step", "steps")
_SUM = ("partials", "offset", "count")

Lanes = tuple[tuple[float, ...], ...]
"""Numbers that differ along the lanes of a chunk."""


def chunk_kernel(compiled: CompiledCell, places: Places, phase: Phase) -> tuple[str, Lanes]:
    """An instance computes a block of chunks of one tensor, or the sums of several blocks."""
    length, program, sums = compiled.chunk_length, compiled.programs[phase.name], is_sum(phase)
    grid = Grid({"rows": "rows"}, {"rows": 0, "lane": 1}, length)
    sizes = ("CHUNKS: tl.constexpr", *(["STEPS: tl.constexpr"] if sums else []))
    kernel = Kernel(phase.name, grid, (*TABLES, *(_SUM if sums else ()), *KINDS, *sizes), places, _TAKEN)

    def at(name: str, place: int) -> str:
        return kernel.number(name, place, "row")

    inputs = {value.name: kernel.load(value, at, frozenset()) for value in program.inputs if not _is_of_parts(value)}
    head = [*BEGIN, "first = tl.load(starts + block).to(tl.int64)", *kernel.lines]
    first = "first + step * CHUNKS" if sums else "first"
    kernel.lines[:] = [f"base, places, valid, chunk, is_chunk = chunk_places(entry, {first}, CHUNKS, {length}, PLAIN)"]
    arrays = _ChunkArrays(kernel, compiled, program)
    inputs.update((value.name, arrays.read(value)) for value in program.inputs if _is_of_parts(value))
    outputs = kernel.symbols.run(program, inputs)
    lanes = tuple(kernel.symbols.lanes)
    if not sums:
        arrays.store(outputs)
        return kernel.text(head), lanes
    head.append("steps = tl.minimum(STEPS, (tl.load(entry + 2) - first + CHUNKS - 1) // CHUNKS).to(tl.int32)")
    head.append("step = steps * 0")
    foot = []
    for number, term in enumerate(term for array in outputs.values() for term in array.terms.reshape(-1)):
        total = kernel.names.fresh(f"total_{number}")
        head.append(f"{total} = 0.0")
        kernel.lines.append(f"{total} += tl.sum(tl.where(is_chunk, {term.text}, 0.0))")
        foot.append(f"tl.store(partials + {number} * count + offset + block, {total})")
    kernel.lines.append("step += 1")
    return kernel.text(head, foot, loop="while step < steps:"), lanes


def _is_of_parts(value: Value) -> bool:
    return group_of(value.name) in OF_PARTS


class _ChunkArrays:
    """Parameters, gradients and memory of a block of chunks."""

    def __init__(self, kernel: Kernel, compiled: CompiledCell, program: Program):
        self.kernel = kernel
        self.length = compiled.chunk_length
        self.slots = {f"memory.{slot.name}": slot for slot in compiled.memory_slots}
        self.pointers: dict[str, str] = {}
        used = {value.name for value in program.inputs} | {name for name, _ in program.outputs}
        for number, name in enumerate(("param", "grad", *self.slots)):
            if name in used:
                self.pointers[name] = self._find(name, number)

    def _find(self, name: str, number: int) -> str:
        """Writes where an array is, from the first coordinate of the block on."""
        slot = self.slots.get(name)
        dtype = f"tl.{slot.dtype}" if slot else name.upper()
        pointer = self.kernel.names.fresh(f"{name.rpartition('.')[2]}_at")
        text = f"tl.load(pointers + {number} * tensors + row).to(tl.pointer_type({dtype}))"
        if slot is None:
            text = f"strided_places(entry, {text}, base, places, {number}, PLAIN)"
        elif slot.per == "coordinate":
            text = f"from_base({text}, base, {math.prod(slot.shape)}, PLAIN)"
        self.kernel.lines.append(f"{pointer} = {text}")
        return pointer

    def _entry(self, name: str, place: int) -> tuple[str, str, str]:
        """Of an entry the pointers, the mask, and the condition under which tensors have it."""
        pointer, slot = self.pointers[name], self.slots.get(name)
        if slot is None:
            return pointer, "valid", ""
        condition = f"SLOTS & {1 << self.kernel.places.memory[name]}"
        width = math.prod(slot.shape)
        index = "chunk" if slot.per == "chunk" else "places"
        scaled = index if width == 1 else f"{index} * {width} + {place}"
        return f"{pointer} + {scaled}", "is_chunk" if slot.per == "chunk" else "valid", condition

    def _axes(self, slot: MemorySlot | None) -> tuple[Label, ...]:
        """The block axes of an entry."""
        return ("rows",) if slot is not None and slot.per == "chunk" else ("rows", "lane")

    def _block(self, slot: MemorySlot | None) -> str:
        """A block of zeros, of the shape of an entry."""
        return f"tl.zeros((CHUNKS, {1 if len(self._axes(slot)) == 1 else self.length}), tl.float32)"

    def read(self, value: Value) -> Array:
        """An input of the phase."""
        if value.name not in self.pointers:
            raise NoKernelError(f"a kernel does not read {value.name}")
        slot = self.slots.get(value.name)
        axes = self._axes(slot)
        labels = (*axes, *("" for _ in value.shape[len(axes) :]))
        sizes = [1 if label or isinstance(size, str) else size for size, label in zip(value.shape, labels, strict=True)]
        terms = np.empty(sizes, object)
        for number, place in enumerate(np.ndindex(*terms.shape)):
            pointers, mask, condition = self._entry(value.name, number)
            text = f"tl.load({pointers}, mask={mask}, other=0).to(tl.float32)"
            first = self._block(slot) if condition else text
            terms[place] = term = self.kernel.symbols.assign(value.name, first, frozenset(axes))
            if condition:
                self.kernel.lines.append(f"if {condition}:\n    {term.text} = {text}")
        return Array(terms, labels)

    def store(self, outputs: Mapping[str, Array]) -> None:
        """Writes the results back."""
        for name, array in outputs.items():
            slot = self.slots.get(name)
            dtype = f"tl.{slot.dtype}" if slot else name.upper()
            for number, term in enumerate(array.terms.reshape(-1)):
                pointers, mask, condition = self._entry(name, number)
                value = self._widened(term, slot)
                text = f"tl.store({pointers}, narrow({value}, {dtype}), mask={mask})"
                self.kernel.lines.append(f"if {condition}:\n    {text}" if condition else text)

    def _widened(self, term: Term, slot: MemorySlot | None) -> str:
        """A term as a block of the shape of an entry."""
        return term.text if term.axes == {*self._axes(slot)} else f"{term.text} + {self._block(slot)}"
