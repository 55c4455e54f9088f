"""`mnemo inspect`."""

from typing import Any, TYPE_CHECKING

import rich_click as click

from ._console import json_option, print_facts, print_json, print_table, zoo_option

if TYPE_CHECKING:
    from ..artifact import FrozenCell

STAGES = ("cell", "jaxpr", "program", "torch", "optax", "onnx", "stablehlo")


@click.command()
@click.argument("ref")
@click.option(
    "--emit",
    type=click.Choice(STAGES),
    help="Print this stage of the compiler instead: the configuration as JSON, what JAX traces, the optimised program, "
    "or a target's code.",
)
@zoo_option
@json_option
def inspect(ref: str, emit: str | None, location: str | None, as_json: bool) -> None:
    """Show what a cell is, what its state and its step cost and how it was meta-trained.

    Operations are floating-point operations of a phase for one of its rows, before and after the compiler's passes.

    \b
    Example:
      mnemo inspect mnemosyne-tiny --emit program
    """
    from .._refs import load

    frozen = load(ref, location)
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
    facts["memory_slots"] = ", ".join(
        name + "".join(f"[{size}]" for size in shape) for name, shape in facts["memory_slots"].items()
    )
    phases = facts.pop("phases")
    before, after = facts["operations_a_coordinate"]
    facts["operations_a_coordinate"] = f"{after:.0f} ({before:.0f} before the passes)"
    shown = facts | training | {f"figure: {name}": f"{value:.4g}" for name, value in figures.items()}
    print_facts({name.replace("_", " "): value for name, value in shown.items()})
    import rich.table

    table = rich.table.Table("phase", "a row is", "equations", "after", "operations a row", "after")
    for name, figures in phases.items():
        table.add_row(name, figures["row"], *(str(x) for key in ("equations", "operations") for x in figures[key]))
    print_table(table)


def stage_text(frozen: "FrozenCell", stage: str) -> str:
    """A cell as the compiler has it at a stage."""
    from ..exporters import emitted_text
    from ..program import compile_cell, jaxprs

    if stage == "jaxpr":
        return "\n\n".join(f"# {name}\n{text}" for name, text in jaxprs(frozen.cell()).items())
    if stage == "program":
        return "\n\n".join(str(program) for program in compile_cell(frozen.cell()).programs.values())
    return emitted_text(frozen, stage)


def describe(frozen: "FrozenCell") -> dict[str, Any]:
    """The facts of a frozen cell as JSON data."""
    from ..program import compile_cell, cost, traced_phases

    cell = frozen.cell()
    compiled = compile_cell(cell)
    traced = traced_phases(cell)
    phases = {
        name: {
            "row": {"recall": "tensor", "encode": "sampled chunk", "probe": "sampled chunk"}.get(name, "chunk"),
            "equations": [cost(traced[name]).equations, cost(program).equations],
            "operations": [cost(traced[name]).operations, cost(program).operations],
        }
        for name, program in compiled.programs.items()
    }
    return {
        "name": frozen.name,
        "version": frozen.version,
        "digest": frozen.digest,
        "license": frozen.manifest.license,
        "kind": frozen.config.kind,
        "weights": sum(weight.size for weight in frozen.weights.values()),
        "memory_slots": {slot.name: list(slot.shape) for slot in cell.memory_slots},
        "state_bytes_a_parameter": frozen.manifest.state_bytes,
        "state_bytes_a_tensor": sum(4 * value.size for value in cell.initial_state().values()),
        "chunk_length": cell.chunk_length,
        "sample_chunks": cell.sample_chunks,
        "operations_a_coordinate": [
            sum(figures["operations"][place] for figures in phases.values() if figures["row"] == "chunk")
            / cell.chunk_length
            for place in (0, 1)
        ],
        "phases": phases,
        "training": frozen.manifest.training.model_dump(mode="json"),
    }
