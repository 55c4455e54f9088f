"""Training runs over tensors of every kind, computed by the cell in float64."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..cell import AbstractCell
from ..step import reference
from ._regimes import gradient_sizes, ORDINARY, SPARSE
from ._wide import jit_few_runs, widened


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A run in float64 over a fixed history of gradients."""

    params: dict[str, np.ndarray]
    """The parameters before the first step, by name."""
    grads: list[list[np.ndarray]]
    results: list[list[np.ndarray]]
    """The parameters after each step."""
    options: dict[str, Any]


def trajectory(
    cell: AbstractCell, random: np.random.Generator, steps: int, *, total_steps: int | None, kinds: int
) -> Trajectory:
    """A run over tensors of every kind with gradients of every regime. Two of its steps are refused.

    **Arguments:**

    - `cell`: the cell.
    - `random`: draws parameters and gradients.
    - `steps`: the number of steps.
    - `total_steps`: the horizon that the optimizer knows, or None.
    - `kinds`: the number of kinds of tensors. A target that compiles needs a program for each kind.
    """
    length, sample = cell.chunk_length, cell.sample_chunks
    # Less than two chunks, fewer chunks than are sampled, and more. Tensors repeat these sizes, as each is compiled.
    few, some, many = length + 3, 2 * (6 * length + 5), 3 * (length * sample + 5)
    # Shape, size of the parameters, regime: small parameters show the whole update, large ones its rounding. Only the
    # name of the head says more than a shape does.
    tensors: tuple[tuple[tuple[int, ...], float, str], ...] = (
        ((few,), 1e-3, ORDINARY),
        ((24, 20), 0.05, ORDINARY),
        ((2, some // 2), 1e-3, ORDINARY),
        # More than one tile, in the largest tiles of published cells; and a convolution.
        ((20, 130), 0.05, SPARSE),
        ((4, 5, 3, 2), 0.1, ORDINARY),
        ((), 1.0, ORDINARY),
        ((1,), 1.0, "tiny"),
        ((some,), 1.0, ORDINARY),
        ((some // 2, 2, 1), 1e-2, SPARSE),
        ((3, many // 3), 0.05, ORDINARY),
        ((few, 1), 0.1, "huge"),
        ((few,), 0.1, "denormal"),
        ((1, few), 1.0, "zero"),
        ((1, some), 0.1, "mixed"),
    )[:kinds]
    shapes = tuple(shape for shape, _, _ in tensors)
    names = [f"{'head' if shape == (2, some // 2) else 'tensor'}.{place}" for place, shape in enumerate(shapes)]
    params = {
        name: np.asarray(random.normal(size=shape) * scale, np.float32)
        for name, (shape, scale, _) in zip(names, tensors, strict=True)
    }
    means = [random.normal(size=shape) for shape in shapes]
    sizes = [
        gradient_sizes([regime], random, max(mean.size, 1)) for mean, (_, _, regime) in zip(means, tensors, strict=True)
    ]
    grads = [
        [
            np.asarray(_gradient(random, mean, size, step, steps, regime), np.float32)
            for mean, size, (_, _, regime) in zip(means, sizes, tensors, strict=True)
        ]
        for step in range(steps)
    ]
    options: dict[str, Any] = {"lr": 1.0, "weight_decay": 10.0, "total_steps": total_steps}
    hyper = {name: float(value or 0) for name, value in options.items()}
    layout = reference.layout_of(cell, shapes, names)
    with jax.enable_x64(True):
        wide = widened(cell)

        def packed(tensors: list[np.ndarray]) -> jax.Array:
            return reference.pack(layout, [jnp.asarray(tensor, jnp.float64) for tensor in tensors])

        @jit_few_runs
        def advance(param: jax.Array, grads: list[np.ndarray], state: reference.OptimizerState) -> Any:
            after, state = reference.step(wide, layout, param, packed(grads), state, **hyper)
            return after, state, reference.unpack(layout, after)

        param, state = jit_few_runs(packed)(list(params.values())), reference.init(wide, layout, jnp.float64)
        results = []
        for step_grads in grads:
            param, state, after = advance(param, step_grads, state)
            results.append([np.asarray(value) for value in after])
    return Trajectory(params, grads, results, options)


def _gradient(
    random: np.random.Generator, mean: np.ndarray, sizes: np.ndarray, step: int, steps: int, regime: str
) -> np.ndarray:
    """Noise around a fixed direction of varying size. Some steps have zeros, one is huge, and one is not finite."""
    grad = (0.3 * mean + random.normal(size=mean.shape)) * 10 ** (2 * np.sin(step / 9) - 2) * sizes.reshape(mean.shape)
    if step % 17 == 11:
        grad = np.zeros(mean.shape)
    elif step % 5 == 2 or regime == SPARSE:
        grad = np.where(random.random(mean.shape) < 0.8, 0.0, grad)
    if step == steps // 2:
        grad = random.choice([-1e18, 1e18], mean.shape)
    if step == steps // 3:
        grad = np.where(random.random(mean.shape) < 0.5, np.inf, grad) * np.nan
    return grad
