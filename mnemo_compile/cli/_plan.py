"""`mnemo plan`."""

from typing import Any, TYPE_CHECKING

import rich_click as click

from ..errors import MissingExtraError
from ..plan import DTYPES, format_size, parse_size, plan as make_plan, Setting, TASKS
from ._console import json_option, message, print_facts, print_json, print_rows, zoo_option

if TYPE_CHECKING:
    from ..plan import Dtype, Placement, Plan

_SHARDINGS = {"none": "", "copies": "copies (DDP)", "fully_shard": "fully_shard (FSDP2)"}


@click.command()
@click.argument("model")
@click.option("--task", type=click.Choice(TASKS), required=True, help="What is trained of the model.")
@click.option("--ref", default="mnemosyne-base", show_default=True, help="The cell whose optimizer trains.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Examples per device and pass.")
@click.option("--length", type=click.IntRange(1), help="Symbols of a text; 512 by default, or what the model can read.")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="float32",
    show_default=True,
    help="Of weights; mixed has float32 weights and products in bfloat16.",
)
@click.option("--checkpointing", is_flag=True, help="Compute activations again in the backward pass.")
@click.option(
    "--virtual-tokens", type=click.IntRange(1), default=20, show_default=True, help="The length of a soft prompt."
)
@click.option("--memory", metavar="SIZE", help="Memory of a device, such as 80G or 79.1GiB.")
@click.option("--devices", type=click.IntRange(1), help="Their number; the fewest that fit by default.")
@zoo_option
@json_option
def plan(
    model: str,
    task: str,
    ref: str,
    batch: int,
    length: int | None,
    dtype: "Dtype",
    checkpointing: bool,
    virtual_tokens: int,
    memory: str | None,
    devices: int | None,
    location: str | None,
    as_json: bool,
) -> None:
    """Show what memory a training takes, for the cell's optimizer, AdamW and Adafactor, and whether it fits.

    MODEL is a short name such as vit-base, bert-large or t5-xxl, a folder with config.json, or a name on the hub that
    is cached or can be reached. Nothing is downloaded but its configuration, and no weight is made: a step runs on
    tensors without numbers.

    \b
    Example:
      mnemo plan vit-huge --task finetune --batch 32 --dtype mixed --memory 80G
      mnemo plan t5-xxl --task prompt-tune --length 128 --devices 4 --memory 24G
    """
    try:
        import torch as torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", "recipes") from None
    from .._refs import load

    capacity = None if memory is None else parse_size(memory)
    setting = Setting(batch, length, dtype, checkpointing, virtual_tokens)
    made = make_plan(model, task, load(ref, location), setting, devices=devices, capacity=capacity)
    if as_json:
        print_json(made.data())
    else:
        _show(made)


def _show(plan: "Plan") -> None:
    memory = plan.memory
    facts = {"model": f"{plan.model}, {memory.parameters:,} parameters", "task": plan.task}
    names = ("weights", "gradients", "activations")
    facts |= {name: format_size(getattr(memory, name)) for name in names}
    print_facts(facts)
    rows = [
        (name, format_size(plan.state[name]), format_size(place.peak), str(place.devices), *_verdict(place))
        for name, place in plan.placements.items()
    ]
    print_rows("", ("optimizer", "state", "peak per device", "devices", "sharding", "fits"), rows)
    if plan.command is not None:
        print(plan.command)
    if any(place.fits is False for place in plan.placements.values()):
        message(
            "What does not fit needs --checkpointing, a smaller --batch or --length, --dtype mixed or bfloat16, "
            "or more --devices."
        )


def _verdict(placement: "Placement") -> tuple[str, str]:
    answers: dict[Any, str] = {None: "", True: "yes", False: "no"}
    return _SHARDINGS[placement.sharding], answers[placement.fits]
