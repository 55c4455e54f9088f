"""Hand-designed optimizers: tuned for each task over a grid, or as a user would start."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

RATES = tuple(10 ** (exponent / 2) for exponent in range(-10, 1))
"""Half decades from 1e-5 to 1."""
SCHEDULES = ("constant", "cosine")


class Setting(NamedTuple):
    """A point of the grid; arrays of them for many."""

    rate: Any
    cosine: Any
    """1 for a cosine to zero over the steps, 0 for a constant rate."""


class Opponent(NamedTuple):
    """An optimizer to be compared with."""

    name: str
    make: Callable[[Any, int], optax.GradientTransformationExtraArgs]
    """From a setting and the number of steps."""
    grid: tuple[Setting, ...]
    """What it is tuned over; one point for an optimizer that is taken as it is."""


def _scheduled(setting: Setting, steps: int) -> optax.Schedule:
    def rate(count: Any) -> Any:
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * count / steps))
        return setting.rate * jnp.where(setting.cosine > 0, cosine, 1.0)

    return rate


def _tuned(name: str, optimizer: Callable[..., Any], **options: Any) -> Opponent:
    def make(setting: Any, steps: int) -> Any:
        return optimizer(_scheduled(setting, steps), **options)

    grid = tuple(Setting(rate, float(s == "cosine")) for rate in RATES for s in SCHEDULES)
    return Opponent(name, make, grid)


def _plain(name: str, optimizer: Callable[[int], Any]) -> Opponent:
    return Opponent(name, lambda setting, steps: optimizer(steps), (Setting(0.0, 0.0),))


OPPONENTS: dict[str, Opponent] = {
    opponent.name: opponent
    for opponent in (
        _tuned("adamw", optax.adamw),
        _tuned("sgd", optax.sgd, momentum=0.9, nesterov=True),
        _tuned("lion", optax.lion),
        _tuned("muon", optax.contrib.muon),
        _plain("adamw-1e-3", lambda steps: optax.adamw(1e-3)),
        _plain("prodigy", lambda steps: optax.contrib.prodigy()),
        _plain("schedule-free", lambda steps: optax.contrib.schedule_free_adamw(warmup_steps=max(steps // 20, 1))),
    )
}

ROOTS = ("_scheduled", "_tuned", "_plain")
"""What the digest of a baseline covers of this file, besides what these name."""
