"""Optimizers with one setting: a cell with a multiplier of its step, and the baselines with a learning rate."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ....cell import AbstractCell
from ...tasks import Tensor
from .._cell_optimizer import as_optax, identity_of

MULTIPLIERS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of a cell's step."""
WARM_UP, WEIGHT_DECAY, CLIP = 0.05, 0.1, 1.0
MUON_ADAMW = 0.3
"""Muon's AdamW, which has Nesterov's momentum in optax, has this fraction of Muon's learning rate."""
NOT_OF_MATRICES = frozenset(("embedding", "embeddings", "embed", "positions", "position", "head"))
"""Words of a tensor's name for which it is no matrix to Muon."""

Setting = Float[Array, ""]
Make = Callable[[Any, Sequence[Tensor], Setting, Int[Array, ""]], optax.GradientTransformationExtraArgs]


class Optimizer(NamedTuple):
    """What a rung is trained with. One compiled program serves all settings, horizons and weights, which are data."""

    name: str
    identity: str
    """Changes where the optimizer computes something else."""
    settings: tuple[float, ...]
    make: Make
    """From the weights, the tensors, a setting and the number of steps, 0 if it is unknown."""
    weights: Any = None
    """Arrays of a cell."""

    @property
    def is_cell(self) -> bool:
        """Whether it is a cell, which may not know its horizon, and not a baseline."""
        return self.weights is not None


def of_cell(cell: AbstractCell, digest: str, multipliers: Sequence[float]) -> Optimizer:
    """A cell that multiplies its step by the setting."""

    weights, rest = eqx.partition(cell, eqx.is_array)

    def make(weights: Any, tensors: Sequence[Tensor], setting: Setting, steps: Int[Array, ""]) -> Any:
        names = [tensor.name for tensor in tensors]
        return as_optax(eqx.combine(weights, rest), steps, names, lr=setting)

    return Optimizer("cell", identity_of(cell, digest), tuple(multipliers), make, weights)


def _rate(setting: Setting, steps: Int[Array, ""]) -> optax.Schedule:
    """A linear warm-up to the setting, then a cosine to zero."""

    def rate(count: Any) -> Any:
        warm = jnp.minimum((count + 1) / (WARM_UP * steps), 1)
        return setting * warm * 0.5 * (1 + jnp.cos(jnp.pi * count / steps))

    return rate


def _adamw(_: Any, tensors: Sequence[Tensor], setting: Setting, steps: Int[Array, ""]) -> Any:
    rate = _rate(setting, steps)
    return optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(rate, weight_decay=WEIGHT_DECAY))


def _muon(_: Any, tensors: Sequence[Tensor], setting: Setting, steps: Int[Array, ""]) -> Any:
    axes: Any = [axes_of_muon(tensor) for tensor in tensors]
    return optax.chain(
        optax.clip_by_global_norm(CLIP),
        optax.contrib.muon(
            _rate(setting, steps),
            weight_decay=WEIGHT_DECAY,
            adam_weight_decay=WEIGHT_DECAY,
            adam_learning_rate=_rate(MUON_ADAMW * setting, steps),
            muon_weight_dimension_numbers=axes,
        ),
    )


def axes_of_muon(tensor: Tensor) -> optax.contrib.MuonDimensionNumbers | None:
    """Input and output axes of a matrix or a kernel; None for embeddings, positions, the head and vectors.

    These are for AdamW. Their names tell.
    """
    if len(tensor.shape) < 2 or NOT_OF_MATRICES.intersection(tensor.name.replace("_", ".").split(".")):
        return None
    last = len(tensor.shape) - 1
    return optax.contrib.MuonDimensionNumbers(reduction_axis=tuple(range(last)), output_axis=last)


_COMMON = f"warm-up {WARM_UP:g}, cosine, weight decay {WEIGHT_DECAY:g}, clipped at {CLIP:g}"
BASELINES: dict[str, Optimizer] = {
    optimizer.name: optimizer
    for optimizer in (
        Optimizer("adamw", _COMMON, (3e-4, 1e-3, 3e-3, 1e-2), _adamw),
        Optimizer(
            "muon",
            f"{_COMMON}; embeddings, positions, head and vectors by NAdamW at {MUON_ADAMW:g} of the rate",
            (3e-3, 1e-2, 3e-2, 1e-1),
            _muon,
        ),
    )
}
"""Tuned for each rung over four rates."""
