"""Options that all recipes have."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click
import transformers

Command = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train, and where the results go. The defaults here are those of the options."""

    out: pathlib.Path
    steps: int
    batch: int
    accumulate: int = 1
    optimizer: str = "mnemosyne"
    schedule: str = "linear"
    warm_up: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    compare: tuple[str, ...] = ()
    seeds: int = 1
    eval_every: int = 100
    save_every: int = 500
    resume: bool = False
    precision: str | None = None
    gradient_checkpointing: bool = False
    shard: bool = False
    workers: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options of the recipe alone."""


def training_options(*, out: str, steps: int, batch: int) -> Callable[[Command], Command]:
    """Adds the options, with these defaults, to a command whose first argument is the `Settings`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            shared = {name: values.pop(name) for name in Settings.__dataclass_fields__ if name != "options"}
            _check(shared)
            # A new head, and weights that are written in no time, are what is meant.
            transformers.logging.set_verbosity_error()
            transformers.logging.disable_progress_bar()
            command(Settings(**shared, options=values), **values)

        decorated: Command = run
        for option in reversed(_options(Settings(out=pathlib.Path(out), steps=steps, batch=batch))):
            decorated = option(decorated)
        return decorated

    return decorate


def _options(values: Settings) -> list[Callable[[Command], Command]]:
    def option(name: str, **kind: Any) -> Callable[[Command], Command]:
        default = getattr(values, name.strip("-").replace("-", "_"))
        shown = {} if default is None or default == () else {"default": default, "show_default": True}
        return click.option(name, **shown, **kind)

    positive, folder = click.IntRange(min=1), click.Path(path_type=pathlib.Path, file_okay=False)
    return [
        option("--out", type=folder, help="Folder of results."),
        option("--steps", type=positive, help="Steps of the optimizer."),
        option("--batch", type=positive, help="Examples per step, of all processes together."),
        option("--accumulate", type=positive, help="Parts that a batch is divided into, to save memory."),
        option(
            "--optimizer",
            metavar="NAME[:RATE]",
            help="mnemosyne, adamw, adafactor, sgd, trainer (the default of Trainer), or a model of the zoo.",
        ),
        option("--schedule", type=click.Choice(["linear", "cosine", "constant"]), help="Of the rate."),
        option("--warm-up", type=click.FloatRange(0, 1), help="Fraction of the steps."),
        option("--weight-decay", type=click.FloatRange(min=0), help="Of adamw, adafactor and sgd."),
        option("--clip", type=click.FloatRange(min=0), help="Largest norm of gradients; 0: any."),
        option("--seed", type=click.IntRange(min=0), help="Of weights, order and noise."),
        option(
            "--compare",
            multiple=True,
            metavar="NAME[:RATE,RATE…]",
            help="An optimizer of a comparison, with its rates; may be repeated.",
        ),
        option("--seeds", type=positive, help="Seeds per optimizer and rate of a comparison."),
        option("--eval-every", type=positive, help="Steps between two validations."),
        option("--save-every", type=positive, help="Steps between two checkpoints."),
        option("--resume", is_flag=True, help="Go on from the last checkpoint in --out."),
        option("--precision", type=click.Choice(["no", "bf16"]), help="Of activations; by default accelerate's."),
        option("--gradient-checkpointing", is_flag=True, help="Compute activations again, to save memory."),
        option("--shard", is_flag=True, help="Divide parameters and state over the processes (FSDP2)."),
        option("--workers", type=click.IntRange(min=0), help="Processes that load data."),
    ]


def _check(shared: Mapping[str, Any]) -> None:
    if shared["batch"] % shared["accumulate"]:
        raise click.UsageError(
            f"--batch {shared['batch']} cannot be divided into {shared['accumulate']} parts; "
            "pass an --accumulate that divides it."
        )
