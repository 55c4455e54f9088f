"""Options that both recipes have."""

import functools
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Settings:
    """How to train, and where the results go."""

    out: pathlib.Path
    steps: int
    batch: int
    optimizer: str
    seed: int
    eval_every: int
    save_every: int
    resume: bool
    devices: int | None


def training_options(*, out: str, steps: int, batch: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the options, with these defaults, to a command whose first argument is the `Settings`."""
    option, positive = functools.partial(click.option, show_default=True), click.IntRange(min=1)
    folder = click.Path(path_type=pathlib.Path, file_okay=False)
    options = [
        option("--out", type=folder, default=out, help="Folder of results."),
        option("--steps", type=positive, default=steps, help="Steps of the optimizer."),
        option("--batch", type=positive, default=batch, help="Examples per step, on all devices together."),
        option(
            "--optimizer",
            default="mnemosyne-base",
            metavar="NAME[:RATE]",
            help="A model of the zoo, or adamw with its rate: adamw:3e-4.",
        ),
        option("--seed", type=click.IntRange(min=0), default=0, help="Of weights and order."),
        option("--eval-every", type=positive, default=50, help="Steps between two validations."),
        option("--save-every", type=positive, default=100, help="Steps between two checkpoints."),
        option("--resume", is_flag=True, help="Go on from the last checkpoint in --out."),
        option("--devices", type=positive, help="Devices to divide the training over; by default all of them."),
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            fields = {name: values.pop(name) for name in Settings.__dataclass_fields__}
            command(Settings(**fields), **values)

        decorated: Callable[..., None] = run
        for each in reversed(options):
            decorated = each(decorated)
        return decorated

    return decorate
