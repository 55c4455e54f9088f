"""`mnemo inspect`."""

from typing import Any, TYPE_CHECKING

import rich_click as click

from .. import _entry_points
from ._console import Choice, json_option, print_facts, print_json, print_table, untrained, zoo_option

if TYPE_CHECKING:
    from ..cell import AbstractCell, MemorySlot
    from ..frozen import FrozenCell

_ROWS = {"chunks": "chunk", "sample": "sampled chunk", "tensors": "tensor", "tiles": "tile"}

STAGES = ("cell", "jaxpr", "program", *_entry_points.names(_entry_points.TARGETS))


@click.command()
@click.argument("ref")
@click.option(
    "--preset",
    "is_preset",
    is_flag=True,
    help="REF is a preset of meta-train or a TOML file; show its cell before meta-training.",
)
@click.option(
    "--emit",
    type=Choice(STAGES),
    help="Print a stage of the compiler instead: the configuration as JSON, the programs as JAX traces them, the "
    "optimised programs, or the code of a target.",
)
@zoo_option
@json_option
def inspect(ref: str, is_preset: bool, emit: str | None, location: str | None, as_json: bool) -> None:
    """Show a cell: its size, the cost of its state and of its step, and how it was meta-trained.

    The table counts the equations and the floating-point operations of each phase for one row, before and after the
    passes of the compiler.

    \b
    Example:
      mnemo inspect mnemosyne-tiny --emit program
      mnemo inspect --preset super
    """
    from .._refs import load

    frozen = untrained(ref) if is_preset else load(ref, location)
    if emit == "cell":
        print_json(frozen.config.model_dump(mode="json"))
        return
    if emit is not None:
        print(stage_text(frozen, emit))
        return
    facts = describe(frozen)
    if as_json:
        print_json(facts)
        return
    training = facts.pop("training")
    figures = training.pop("figures")
    training["families"] = ", ".join(training["families"])
    training["libraries"] = ", ".join(f"{name} {version}" for name, version in training["libraries"].items())
    facts["memory_slots"] = ", ".join(f"{name} ({what})" for name, what in facts["memory_slots"].items()) or "none"
    facts["state_bytes_per_parameter"] = by_role(facts["state_bytes_per_parameter"])
    phases = facts.pop("phases")
    for name in ("operations_per_coordinate", "operations_per_tiled_coordinate"):
        before, after = facts[name]
        facts[name] = f"{after:.0f} ({before:.0f} before the passes)"
    if not facts["tile"]:
        del facts["tile"], facts["operations_per_tiled_coordinate"]
    shown = facts | training | {f"figure: {name}": f"{value:.4g}" for name, value in figures.items()}
    print_facts({name.replace("_", " "): value for name, value in shown.items()})
    import rich.table

    table = rich.table.Table("phase", "a row is", "equations", "after", "operations per row", "after")
    for name, figures in phases.items():
        table.add_row(name, figures["row"], *(str(x) for key in ("equations", "operations") for x in figures[key]))
    print_table(table)


def by_role(figures: dict[str, float]) -> str:
    """One number where all roles have the same, else each number with its roles."""
    different = sorted(set(figures.values()))
    if len(different) == 1:
        return f"{different[0]:g}"
    return "; ".join(f"{each:g}: {', '.join(r for r, value in figures.items() if value == each)}" for each in different)


def describe_slot(slot: "MemorySlot") -> str:
    """A slot in words, such as `bfloat16[4] per coordinate of vector, head`."""
    numbers = "".join(f"[{size}]" for size in slot.shape)
    roles = "" if slot.roles is None else f" of {', '.join(slot.roles)}"
    return f"{slot.dtype}{numbers} per {slot.per}{roles}"


def stage_text(frozen: "FrozenCell", stage: str) -> str:
    """The text of a cell at a stage of the compiler."""
    from ..exporters import emitted_text
    from ..program import compile_cell, jaxprs

    if stage == "jaxpr":
        return "\n\n".join(f"# {name}\n{text}" for name, text in jaxprs(frozen.cell()).items())
    if stage == "program":
        return "\n\n".join(str(program) for program in compile_cell(frozen.cell()).programs.values())
    return emitted_text(frozen, stage)


def describe(frozen: "FrozenCell") -> dict[str, Any]:
    """Everything that `inspect` shows of a frozen cell, as JSON data."""
    from ..program import compile_cell, cost, TILE
    from ..step import PHASES, ROLES

    cell = frozen.cell()
    compiled = compile_cell(cell)
    phases = {}
    for name, program in compiled.programs.items():
        costs = [cost(each, dict.fromkeys(TILE, cell.tile)) for each in (compiled.traced[name], program)]
        phases[name] = {
            "row": _ROWS[PHASES[name].rows],
            "equations": [each.equations for each in costs],
            "operations": [each.operations for each in costs],
        }
    return {
        "name": frozen.name,
        "version": frozen.version,
        "digest": frozen.digest,
        "license": frozen.manifest.license,
        "kind": frozen.config.kind,
        "weights": sum(weight.size for weight in frozen.weights.values()),
        "memory_slots": {slot.name: describe_slot(slot) for slot in cell.memory_slots},
        "state_bytes_per_parameter": {
            role: sum(slot.bytes_per_parameter(role, cell.chunk_length) for slot in cell.memory_slots) for role in ROLES
        },
        "state_bytes_per_tensor": sum(4 * value.size for value in cell.initial_state().values()),
        "chunk_length": cell.chunk_length,
        "sample_chunks": cell.sample_chunks,
        "tile": cell.tile,
        "operations_per_coordinate": [_of_coordinate(cell, phases, place, is_tiled=False) for place in (0, 1)],
        "operations_per_tiled_coordinate": [_of_coordinate(cell, phases, place, is_tiled=True) for place in (0, 1)],
        "phases": phases,
        "training": frozen.manifest.training.model_dump(mode="json"),
    }


def _of_coordinate(cell: "AbstractCell", phases: dict[str, Any], place: int, *, is_tiled: bool) -> float:
    """Operations per coordinate of a tensor with or without tiles, before (0) or after (1) the passes."""
    from ..step import PHASES

    total = 0.0
    for name, figures in phases.items():
        phase = PHASES[name]
        if phase.rows == "chunks" and (phase.reduce is not None or not is_tiled):
            total += figures["operations"][place] / cell.chunk_length
        if phase.rows == "tiles" and is_tiled and cell.tile:
            total += figures["operations"][place] / cell.tile**2
    return total
