"""`mnemo inspect`."""

from typing import Any, TYPE_CHECKING

import rich_click as click

from ._console import json_option, print_facts, print_json, zoo_option

if TYPE_CHECKING:
    from ..artifact import FrozenCell


@click.command()
@click.argument("ref")
@click.option("--emit", type=click.Choice(["cell"]), help="Print this instead: the cell's configuration as JSON.")
@zoo_option
@json_option
def inspect(ref: str, emit: str | None, location: str | None, as_json: bool) -> None:
    """Show what a cell is, what its state costs and how it was meta-trained.

    \b
    Example:
      mnemo inspect mnemosyne-tiny --json
    """
    from .._refs import load

    frozen = load(ref, location)
    if emit == "cell":
        print_json(frozen.config.model_dump(mode="json"))
        return
    facts = describe(frozen)
    if as_json:
        print_json(facts)
        return
    training = facts.pop("training")
    figures = training.pop("figures")
    training["families"] = ", ".join(training["families"])
    training["libraries"] = ", ".join(f"{name} {version}" for name, version in training["libraries"].items())
    facts["memory_slots"] = ", ".join(facts["memory_slots"])
    shown = facts | training | {f"figure: {name}": f"{value:.4g}" for name, value in figures.items()}
    print_facts({name.replace("_", " "): value for name, value in shown.items()})


def describe(frozen: "FrozenCell") -> dict[str, Any]:
    """The facts of a frozen cell as JSON data."""
    cell = frozen.cell()
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
        "training": frozen.manifest.training.model_dump(mode="json"),
    }
