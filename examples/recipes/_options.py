"""Options that all recipes have."""

import functools
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

Command = Callable[..., None]


@dataclass(frozen=True)
class Settings:
    """How to train, and where the results go."""

    out: pathlib.Path
    steps: int
    batch: int
    accumulate: int
    optimizer: str
    schedule: str
    warm_up: float
    weight_decay: float
    clip: float
    seed: int
    compare: tuple[str, ...]
    seeds: int
    eval_every: int
    save_every: int
    resume: bool
    precision: str | None
    gradient_checkpointing: bool
    shard: bool
    workers: int
    options: dict[str, Any]
    """All options of the command, which a run must be resumed with."""


def training_options(*, out: str, steps: int, batch: int) -> Callable[[Command], Command]:
    """Adds the options, with these defaults, to a command whose first argument is the `Settings`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            fields = {name: values.pop(name) for name in _NAMES}
            _check(fields)
            command(Settings(**fields, options=values), **values)

        decorated: Command = run
        for option in reversed(_options(out, steps, batch)):
            decorated = option(decorated)
        return decorated

    return decorate


def defaults(*, steps: int, batch: int, optimizer: str) -> Settings:
    """Settings of a training that no user started, such as that of a checkpoint for another recipe."""
    command = click.Command("", params=[])
    for option in _options("", steps, batch):
        option(command)
    values = {param.name: param.get_default(click.Context(command)) for param in command.params}
    return Settings(**{**values, "optimizer": optimizer, "compare": (), "out": pathlib.Path(), "options": {}})


_NAMES = tuple(name for name in Settings.__dataclass_fields__ if name != "options")


def _options(out: str, steps: int, batch: int) -> list[Callable[[Command], Command]]:
    option = functools.partial(click.option, show_default=True)
    positive = click.IntRange(min=1)
    return [
        option(
            "--out", type=click.Path(path_type=pathlib.Path, file_okay=False), default=out, help="Folder of results."
        ),
        option("--steps", type=positive, default=steps, help="Steps of the optimizer."),
        option("--batch", type=positive, default=batch, help="Examples per step, of all processes together."),
        option("--accumulate", type=positive, default=1, help="Parts that a batch is divided into, to save memory."),
        option(
            "--optimizer",
            default="mnemosyne",
            metavar="NAME[:RATE]",
            help="mnemosyne, adamw, adafactor, sgd, trainer (the default of Trainer), or a model of the zoo.",
        ),
        option(
            "--schedule", type=click.Choice(["linear", "cosine", "constant"]), default="linear", help="Of the rate."
        ),
        option("--warm-up", type=click.FloatRange(0, 1), default=0.05, help="Fraction of the steps."),
        option("--weight-decay", type=click.FloatRange(min=0), default=0.01, help="Of optimizers with a schedule."),
        option(
            "--clip", type=click.FloatRange(min=0), default=1.0, help="Norm that gradients are clipped at; 0: never."
        ),
        option("--seed", type=click.IntRange(min=0), default=0, help="Of weights, order and noise."),
        option(
            "--compare",
            multiple=True,
            metavar="NAME[:RATE,RATE…]",
            help="An optimizer of a comparison, with its rates; may be repeated.",
        ),
        option("--seeds", type=positive, default=1, help="Seeds per optimizer and rate of a comparison."),
        option("--eval-every", type=positive, default=100, help="Steps between two validations."),
        option("--save-every", type=positive, default=500, help="Steps between two checkpoints."),
        option("--resume", is_flag=True, help="Go on from the last checkpoint in --out."),
        option("--precision", type=click.Choice(["no", "bf16"]), help="Of activations; by default accelerate's."),
        option("--gradient-checkpointing", is_flag=True, help="Compute activations again, to save memory."),
        option("--shard", is_flag=True, help="Divide parameters and state over the processes (FSDP2)."),
        option("--workers", type=click.IntRange(min=0), default=0, help="Processes that load data."),
    ]


def _check(fields: dict[str, Any]) -> None:
    if fields["batch"] % fields["accumulate"]:
        raise click.UsageError(
            f"--batch {fields['batch']} cannot be divided into {fields['accumulate']} parts; "
            "pass an --accumulate that divides it."
        )
