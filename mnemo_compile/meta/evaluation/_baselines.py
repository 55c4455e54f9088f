"""The baselines: hand-designed optimizers, tuned for each task over a grid, or as a user would start."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from ...step import describe
from ..tasks import Tensor
from ._training import MakeOptimizer

RATES = tuple(10 ** (exponent / 2) for exponent in range(-10, 1))
"""Half decades from 1e-5 to 1."""
SCHEDULES = ("constant", "cosine")
TUNED, UNTUNED = "adamw", "adamw-1e-3"
"""The two baselines that every task has: AdamW tuned for the task, and AdamW as a user would start."""
MUON_ADAMW = 0.3
"""Where Muon leaves tensors to AdamW by their role, AdamW has this fraction of Muon's learning rate."""


class Setting(NamedTuple):
    """A point of the grid; as arrays, many of them."""

    rate: Any
    cosine: Any
    """1 for a cosine to zero over the steps, 0 for a constant rate."""


GRID = tuple(Setting(rate, float(s == "cosine")) for rate in RATES for s in SCHEDULES)


class Baseline(NamedTuple):
    """An optimizer to compare with."""

    name: str
    options: str
    """The options of the optimizer, which are the same at every point of the grid."""
    make: Callable[[Sequence[Tensor], Any, int], optax.GradientTransformationExtraArgs]
    """From the tensors, a setting and the number of steps."""
    grid: tuple[Setting, ...]
    """What it is tuned over; a single point for an optimizer that is not tuned."""

    def of(self, tensors: Sequence[Tensor]) -> MakeOptimizer:
        """The optimizer of these tensors."""
        return functools.partial(self.make, tensors)


def _scheduled(setting: Setting, steps: int) -> optax.Schedule:
    def rate(count: Any) -> Any:
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * count / steps))
        return setting.rate * jnp.where(setting.cosine > 0, cosine, 1.0)

    return rate


def _tuned(name: str, optimizer: Callable[..., Any], **options: Any) -> Baseline:
    def make(tensors: Sequence[Tensor], setting: Any, steps: int) -> Any:
        return optimizer(_scheduled(setting, steps), **options)

    return Baseline(name, ", ".join(f"{key}={value}" for key, value in options.items()), make, GRID)


def _muon_of_hidden_matrices(tensors: Sequence[Tensor], setting: Any, steps: int) -> Any:
    """Muon as its authors use it: embeddings, positions, heads and vectors are for AdamW."""
    axes: Any = [muon_axes(tensor) for tensor in tensors]
    return optax.contrib.muon(
        _scheduled(setting, steps),
        adam_learning_rate=_scheduled(setting._replace(rate=MUON_ADAMW * setting.rate), steps),
        muon_weight_dimension_numbers=axes,
    )


def muon_axes(tensor: Tensor) -> optax.contrib.MuonDimensionNumbers | None:
    """Input and output axes of a matrix or a convolution by its role; None for what is AdamW's."""
    axes = describe(tensor.shape, name=tensor.name).axes
    if axes is None:
        return None
    # The tensors of tasks have their outputs last.
    last = len(tensor.shape) - 1
    return optax.contrib.MuonDimensionNumbers(reduction_axis=tuple(range(last)), output_axis=last)


def _untuned(name: str, options: str, optimizer: Callable[[int], Any]) -> Baseline:
    return Baseline(name, options, lambda tensors, setting, steps: optimizer(steps), (Setting(0.0, 0.0),))


BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        _tuned(TUNED, optax.adamw),
        _tuned("sgd", optax.sgd, momentum=0.9, nesterov=True),
        _tuned("lion", optax.lion),
        _tuned("muon", optax.contrib.muon),
        Baseline("muon-hidden", f"hidden matrices; AdamW at {MUON_ADAMW:g}", _muon_of_hidden_matrices, GRID),
        _untuned(UNTUNED, "learning_rate=0.001", lambda steps: optax.adamw(1e-3)),
        _untuned("prodigy", "", lambda steps: optax.contrib.prodigy()),
        _untuned(
            "schedule-free",
            "warmup_steps=steps // 20",
            lambda steps: optax.contrib.schedule_free_adamw(warmup_steps=max(steps // 20, 1)),
        ),
    )
}
