"""Which parameters of a pretrained network are trained."""

import re

import click
from torch import nn

LAYER = re.compile(r"\blayers?\.(\d+)\.")


def freeze(model: nn.Module, trained: str, heads: tuple[str, ...]) -> None:
    """Leaves `all`, the `head`, or the head and a number of last layers to be trained."""
    if trained == "all":
        return
    if trained != "head" and not trained.isdecimal():
        raise click.UsageError(f"--train {trained} is not possible; pass all, head, or a number of last layers.")
    names = [name for name, _ in model.named_parameters()]
    depth = 1 + max((int(match[1]) for name in names if (match := LAYER.search(name))), default=-1)
    last = 0 if trained == "head" else int(trained)
    if last > depth:
        raise click.UsageError(f"--train {trained} names more layers than the {depth} of the model.")
    for name, param in model.named_parameters():
        layer = LAYER.search(name)
        is_last = layer is not None and int(layer[1]) >= depth - last
        param.requires_grad_(is_last or name.split(".")[0] in heads)
