"""The kernel of the phases over tiles."""

import dataclasses
import textwrap
from collections.abc import Sequence

from ....program import CompiledCell, dce, fuse, Operand, optimise, Program, Value
from ....step import CARRIED, group_of, OF_PARTS
from ._kernel import BEGIN, Kernel, KINDS, one, TABLES
from ._places import Places
from ._symbols import Array, Grid, NoKernelError, Term

_TAKEN = ("block", "entry", "row", "number", "place", "matrix", "top", "left", "valid", "tile_side")
_SIZES = ("HEIGHT: tl.constexpr", "WIDTH: tl.constexpr", "PRECISION: tl.constexpr", "PART: tl.constexpr")
_PLACE = "matrix, top, left, valid, tile_side = tile_places(entry, place, HEIGHT, WIDTH, PLAIN)"
_OWN_SIDE = "if PART == 1:\n    tile_side = tl.load(between + block * HEIGHT * WIDTH)"
"""Verification of the first part alone gives the side of a tile."""


def tile_kernel(compiled: CompiledCell, places: Places, programs: Sequence[Program]) -> str:
    """Consecutive phases over tiles. An instance computes one tile.

    Outputs are computed one after the other, and what was read is read again, strides too, because registers are few.
    """
    grid = Grid({"rows": "", "height": "row", "width": "column"}, {"row": 0, "column": 1})
    kernel = Kernel("tiles", grid, (*TABLES, "between", *KINDS, *_SIZES), places, _TAKEN)
    fused = [optimise(program, [fuse]) for program in programs]
    steps = [_alone(program, output) for program in fused for output in program.outputs]
    if [group_of(name) in CARRIED for step in steps for name, _ in step.outputs].count(False) != 1:
        raise NoKernelError("phases over tiles hand over one array")

    def at(name: str, place: int) -> str:
        return kernel.number(name, place, "row")

    inputs: dict[str, Array] = {}
    for value in (value for program in fused for value in program.inputs):
        if group_of(value.name) not in OF_PARTS and value.name not in inputs:
            inputs[value.name] = kernel.load(value, at, frozenset())
    kernel.lines.extend([_PLACE, _OWN_SIDE])
    inputs["tile.side"] = one(Term("tile_side"), ("",))
    start = len(kernel.lines)
    stores: list[str] = []
    for count, step in enumerate(steps):
        if count:
            kernel.lines.append("tl.debug_barrier()")
        arrays = _TileArrays(kernel, compiled, step)
        inputs.update((value.name, arrays.read(value)) for value in step.inputs if value.name in arrays.at)
        ((name, array),) = kernel.symbols.run(step, inputs).items()
        if group_of(name) not in CARRIED:
            inputs[name] = array
            kernel.lines[start:] = _handed_over(kernel, array.terms.item(), kernel.lines[start:])
            continue
        # Phases read what was before the step.
        is_read = any(name == value.name for later in steps[count + 1 :] for value in later.inputs)
        (stores if is_read else kernel.lines).append(arrays.store(name, array.terms.item()))
    return kernel.text([*BEGIN, "place = tl.load(starts + block)"], stores)


def _alone(program: Program, output: tuple[str, Operand]) -> Program:
    """The part of a program that one output needs."""
    alone = dce(dataclasses.replace(program, outputs=(output,)))
    used = {operand for equation in alone.equations for operand in equation.inputs} | {output[1]}
    return dataclasses.replace(alone, inputs=tuple(value for value in alone.inputs if value in used))


def _handed_over(kernel: Kernel, term: Term, lines: Sequence[str]) -> list[str]:
    """The lines that compute what the parts hand over. A part alone, as verification runs it, writes or reads it."""
    handed = kernel.names.fresh("handed")
    return [
        f"{handed} = between + block * HEIGHT * WIDTH + tile_order(HEIGHT, WIDTH)",
        f"if PART == 2:\n    {term.text} = tl.load({handed})",
        "else:",
        *(textwrap.indent(line, "    ") for line in lines),
        f"if PART == 1:\n    tl.store({handed}, {term.text})\n    return",
    ]


class _TileArrays:
    """Parameters, gradients and memory of a tile, as a phase reads and writes them."""

    def __init__(self, kernel: Kernel, compiled: CompiledCell, program: Program):
        self.kernel = kernel
        self.at: dict[str, tuple[str, str, str]] = {}
        """By name the pointers, the dtype, and the condition under which tensors have the array."""
        used = {value.name for value in program.inputs} | {name for name, _ in program.outputs}
        slots = {f"memory.{slot.name}": slot for slot in compiled.memory_slots}
        for number, name in enumerate(("param", "grad", *slots)):
            if name not in used:
                continue
            slot = slots.get(name)
            if slot is not None and (slot.shape or slot.per == "chunk"):
                raise NoKernelError("a tile has one number of memory per coordinate")
            dtype = f"tl.{slot.dtype}" if slot else name.upper()
            pointers = kernel.names.fresh(f"{name.rpartition('.')[2]}_at")
            base = f"tl.load(pointers + {number} * tensors + row).to(tl.pointer_type({dtype}))"
            kernel.lines.append(
                f"{pointers} = tile_pointers(\n"
                f"    entry, {base}, matrix, top, left, {min(number, 2)}, HEIGHT, WIDTH, PLAIN\n)"
            )
            self.at[name] = (pointers, dtype, f"SLOTS & {1 << kernel.places.memory[name]}" if slot else "")

    def read(self, value: Value) -> Array:
        """An input of the phase."""
        pointers, _, condition = self.at[value.name]
        text = f"tl.load({pointers}, mask=valid, other=0).to(tl.float32)"
        first = "tl.zeros((HEIGHT, WIDTH), tl.float32)" if condition else text
        term = self.kernel.symbols.assign(value.name, first, frozenset({"row", "column"}))
        if condition:
            self.kernel.lines.append(f"if {condition}:\n    {term.text} = {text}")
        return one(term, ("", "row", "column"))

    def store(self, name: str, term: Term) -> str:
        """What writes a result back."""
        pointers, dtype, condition = self.at[name]
        text = f"tl.store({pointers}, narrow({term.text}, {dtype}), mask=valid)"
        return f"if {condition}:\n    {text}" if condition else text
