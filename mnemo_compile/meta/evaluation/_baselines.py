"""The baselines: hand-designed optimizers, tuned for each task over a grid, or as a user would start."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

RATES = tuple(10 ** (exponent / 2) for exponent in range(-10, 1))
"""Half decades from 1e-5 to 1."""
SCHEDULES = ("constant", "cosine")
TUNED, UNTUNED = "adamw", "adamw-1e-3"
"""The two baselines that every task has: AdamW tuned for the task, and AdamW as a user would start."""


class Setting(NamedTuple):
    """A point of the grid; as arrays, many of them."""

    rate: Any
    cosine: Any
    """1 for a cosine to zero over the steps, 0 for a constant rate."""


class Baseline(NamedTuple):
    """An optimizer to compare with."""

    name: str
    options: str
    """The options of the optimizer, which are the same at every point of the grid."""
    make: Callable[[Any, int], optax.GradientTransformationExtraArgs]
    """From a setting and the number of steps."""
    grid: tuple[Setting, ...]
    """What it is tuned over; a single point for an optimizer that is not tuned."""


def _scheduled(setting: Setting, steps: int) -> optax.Schedule:
    def rate(count: Any) -> Any:
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * count / steps))
        return setting.rate * jnp.where(setting.cosine > 0, cosine, 1.0)

    return rate


def _tuned(name: str, optimizer: Callable[..., Any], **options: Any) -> Baseline:
    def make(setting: Any, steps: int) -> Any:
        return optimizer(_scheduled(setting, steps), **options)

    grid = tuple(Setting(rate, float(s == "cosine")) for rate in RATES for s in SCHEDULES)
    return Baseline(name, ", ".join(f"{key}={value}" for key, value in options.items()), make, grid)


def _untuned(name: str, options: str, optimizer: Callable[[int], Any]) -> Baseline:
    return Baseline(name, options, lambda setting, steps: optimizer(steps), (Setting(0.0, 0.0),))


BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        _tuned(TUNED, optax.adamw),
        _tuned("sgd", optax.sgd, momentum=0.9, nesterov=True),
        _tuned("lion", optax.lion),
        _tuned("muon", optax.contrib.muon),
        _untuned(UNTUNED, "learning_rate=0.001", lambda steps: optax.adamw(1e-3)),
        _untuned("prodigy", "", lambda steps: optax.contrib.prodigy()),
        _untuned(
            "schedule-free",
            "warmup_steps=steps // 20",
            lambda steps: optax.contrib.schedule_free_adamw(warmup_steps=max(steps // 20, 1)),
        ),
    )
}
