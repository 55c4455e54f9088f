"""The state of an inner training."""

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ...step import reference


class InnerState(NamedTuple):
    """One task, and how far its training is."""

    key: PRNGKeyArray
    instance: Any
    """What the family has drawn for the task."""
    horizon: Int[Array, ""]
    """Steps until the training is replaced."""
    step: Int[Array, ""]
    """Steps since it was drawn."""
    restart: Int[Array, ""]
    """The step at which it turns into another task; past the horizon if it does not."""
    total_steps: Float[Array, ""]
    """What the optimizer knows of the horizon: the number of steps from its own start, or 0."""
    initial_loss: Float[Array, ""]
    """Loss of the instance at its start."""
    diverged: Bool[Array, ""]
    scales: Float[Array, "chunks length"]
    """Reparametrisation: the network's coordinates over the optimizer's."""
    gradient_scale: Float[Array, " tensors"]
    """The factor of each tensor's gradient; 0 for a frozen tensor."""
    gradient_noise: Float[Array, ""]
    """Noise in the gradient, relative to its root mean square."""
    param: Float[Array, "chunks length"]
    optimizer: reference.OptimizerState


class Observation(NamedTuple):
    """What one step sees."""

    loss: Float[Array, ""]
    """Loss on the batch of the `train` split, which the step learns from."""
    meta_loss: Float[Array, ""]
    """Loss on a batch of the `meta` split."""
    grad: Float[Array, "chunks length"]
    """The gradient that the optimizer gets."""
