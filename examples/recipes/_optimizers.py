"""Optimizers by name: Mnemosyne, and the ones to compare it with."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import click
import torch
from torch import nn

import mnemo_compile as mnemo
from mnemo_compile.errors import MnemoError

from ._options import Settings

Factor = Callable[[int], float]
"""What the rate is multiplied with at a step."""
RATES = {"adafactor": 1e-2, "adamw": 1e-3, "sgd": 0.1, "trainer": 5e-5}
"""The rate of an optimizer where the user names none."""


@dataclass(frozen=True)
class Choice:
    """An optimizer, and its rate if the user named one."""

    name: str
    rate: float | None = None

    @property
    def label(self) -> str:
        return self.name if self.rate is None else f"{self.name}:{self.rate:g}"


def choices(text: str) -> list[Choice]:
    """The choices of `adamw`, or of `adamw:1e-4,1e-3`."""
    name, _, rates = text.partition(":")
    try:
        return [Choice(name, float(rate)) for rate in rates.split(",")] if rates else [Choice(name)]
    except ValueError:
        raise click.UsageError(f"{text} has a rate that is no number; write for example adamw:1e-4,1e-3.") from None


def make(
    choice: Choice, named: Iterable[tuple[str, nn.Parameter]], settings: Settings
) -> tuple[torch.optim.Optimizer, Factor]:
    """The optimizer of named parameters, and the schedule of its rate."""
    named = list(named)
    if choice.name not in RATES:
        return _mnemosyne(choice, named, settings), lambda step: 1.0
    params = [param for _, param in named]
    rate = choice.rate if choice.rate is not None else RATES[choice.name]
    factor = schedule(settings.schedule, settings.steps, settings.warm_up)
    match choice.name:
        case "trainer":
            # What TrainingArguments say by default: no weight decay, no warm-up, a line to zero.
            return torch.optim.AdamW(params, lr=rate, weight_decay=0.0), schedule("linear", settings.steps, 0.0)
        case "adamw":
            return torch.optim.AdamW(params, lr=rate, weight_decay=settings.weight_decay), factor
        case "adafactor":
            return torch.optim.Adafactor(params, lr=rate, weight_decay=settings.weight_decay), factor
        case _:
            momentum = {"momentum": 0.9, "nesterov": True}
            return torch.optim.SGD(params, lr=rate, weight_decay=settings.weight_decay, **momentum), factor


def _mnemosyne(choice: Choice, named: list[tuple[str, nn.Parameter]], settings: Settings) -> torch.optim.Optimizer:
    """It knows the number of steps, and nothing else."""
    reference = "mnemosyne-base" if choice.name == "mnemosyne" else choice.name
    try:
        optimizer = mnemo.to_torch(reference)
    except MnemoError as error:
        names = ", ".join(["mnemosyne", *RATES])
        raise click.UsageError(f"{choice.name} is neither one of {names} nor a model of the zoo ({error}).") from error
    options = {} if choice.rate is None else {"lr": choice.rate}
    return optimizer(named, total_steps=settings.steps, **options)


def schedule(kind: str, steps: int, warm_up: float) -> Factor:
    """A linear warm-up, and then a line or a cosine to zero."""

    def factor(step: int) -> float:
        growth = (step + 1) / (warm_up * steps) if warm_up else 1.0
        match kind:
            case "linear":
                return min(1.0, growth, 1 - step / steps)
            case "cosine":
                return min(1.0, growth, 0.5 * (1 + math.cos(math.pi * step / steps)))
            case _:
                return min(1.0, growth)

    return factor
