"""Augmentation: how far inner trainings may be from plain ones."""

from typing import NamedTuple


class Augmentation(NamedTuple):
    """Ranges and probabilities from which each task draws once.

    Scales reparametrise: the optimizer sees w / s where the network uses w. s is log-uniform in [1/x, x], one for all
    tensors, one per tensor, or one per coordinate.
    """

    shortest: int
    longest: int
    """Horizons are drawn log-uniformly between these, in inner steps."""
    unknown_horizon: float = 0.0
    """Fraction of tasks whose horizon the optimizer does not know."""
    scale: float = 1.0
    tensor_scale: float = 1.0
    coordinate_scale: float = 1.0
    loss_scale: float = 1.0
    """The gradient is multiplied by a number in [1/x, x]."""
    gradient_noise: float = 0.0
    """The gradient gets noise of up to this many times its tensor's root mean square."""
    frozen: float = 0.0
    """Fraction of tasks in which each tensor has no gradient, with probability 1/4."""
    restart: float = 0.0
    """Fraction of tasks that turn into another task of the family on the way, as in fine-tuning: the parameters stay,
    and the optimizer starts afresh."""
    late: float = 0.0
    """How much more the end of a training counts than its start: a step's weight goes from 1 − late to 1 + late."""
