"""What verification runs, and what the cell computes there in float64: phases on rows of every regime, and a run."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..cell import AbstractCell
from ..program import CompiledCell, memory_shape, nested, phase, phase_inputs, PHASES
from ..step import Layout, reference, ROLES

ORDINARY = "ordinary"
SPARSE = "sparse"
SCALES = {ORDINARY: 1.0, "zero": 0.0, "huge": 1e13, "tiny": 1e-13, "denormal": 1e-41, "enormous": 1e18}
"""Regimes of gradients, and their size. In `mixed` each coordinate has a size of its own, in `sparse` few have any."""
REFUSED = ("enormous", "not finite")
"""Regimes in which the step is refused."""
SEGMENTS = (
    *((ORDINARY, rows) for rows in (1, 7, 1031)),
    *((regime, 7) for regime in ("zero", "huge", "tiny", "denormal", "mixed", SPARSE, *REFUSED)),
)
"""Regimes and numbers of rows at which phases are compared: one, odd, many."""
HISTORY = 3
"""Steps that the rows have behind them."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A phase, inputs in float32 and what the cell gives for them in float64."""

    phase: str
    regime: str
    inputs: dict[str, np.ndarray]
    outputs: tuple[dict[str, np.ndarray], ...]
    """What is right: one, or also what follows where a compiler takes denormal numbers for zero."""


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A run in float64 over a fixed history of gradients."""

    params: list[np.ndarray]
    grads: list[list[np.ndarray]]
    results: list[list[np.ndarray]]
    """The parameters after each step."""
    options: dict[str, Any]


def widened(cell: AbstractCell) -> AbstractCell:
    """The cell with weights in float64; to be called, and used, with 64 bits enabled."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_array(leaf) else leaf, cell)


def phase_cases(cell: AbstractCell, compiled: CompiledCell, random: np.random.Generator) -> list[Case]:
    """Every phase that was compiled, on rows of every regime that have a few steps behind them.

    Each row is the first chunk of a tensor of two, the second being the next row of its regime. Memory and state are
    those that the cell itself gave it.
    """
    regimes = [regime for regime, rows in SEGMENTS for _ in range(rows)]
    count, length = len(regimes), cell.chunk_length
    shapes = phase_inputs(cell)
    valid = np.arange(length) < random.integers(1, length + 1, count)[:, None]
    known: dict[str, np.ndarray] = {
        "param": random.normal(size=(count, length)) * 10 ** random.uniform(-3, 0, (count, 1)) * valid,
        "valid": valid,
        "facts.coordinates": np.exp(random.uniform(1, 12, count)).astype(np.int64),
        "facts.matrix": random.integers(0, 2, count),
        "facts.aspect": np.exp(random.uniform(-3, 3, count)),
        "facts.role": random.integers(0, len(ROLES), count),
        "clock.step": np.where(random.random(count) < 0.2, 0, random.integers(HISTORY, 300, count)),
        "clock.total": random.choice([0.0, 1.0, 10.0, 1000.0], count),
        "hyper.lr": 10 ** random.uniform(0, 1.5, count),
        "hyper.weight_decay": random.uniform(0, 0.1, count),
        "guard.finite": np.ones(count),
        **{f"memory.{slot.name}": np.zeros((count, *memory_shape(slot, length))) for slot in cell.memory_slots},
        **{
            f"state.{name}": np.broadcast_to(value, (count, *value.shape))
            for name, value in cell.initial_state().items()
        },
    }
    run = eqx.filter_jit(phase)
    cases: list[Case] = []
    active = np.array([[regime != SPARSE] for regime in regimes]) | (np.arange(length) == 0)
    following = _following()
    refused = np.array([regime in REFUSED for regime in regimes])
    not_finite = np.array([regime == "not finite" for regime in regimes])
    with jax.enable_x64(True):
        wide = widened(cell)
        for step in range(HISTORY + 1):
            is_last = step == HISTORY
            # The steps before a refused one were ordinary.
            now = regimes if is_last else [ORDINARY if regime in REFUSED else regime for regime in regimes]
            sizes = _sizes(now, random, length) * valid * 10 ** random.uniform(-0.3, 0.3, (count, 1))
            known["grad"] = random.normal(size=(count, length)) * sizes * active
            if is_last:
                broken = not_finite[:, None] & (random.random((count, length)) < 0.5)
                broken[:, 0] |= not_finite
                known["grad"] = np.where(broken, random.choice([np.nan, np.inf, -np.inf], broken.shape), known["grad"])
                known["guard.finite"] = 1.0 - refused
            for name in PHASES:
                given = {key: _narrow(known[key]) for key in shapes[name]}
                outputs = run(wide, name, nested({key: _wide(value) for key, value in given.items()}))
                made = {key: np.asarray(value) for key, value in outputs.items()}
                if is_last and name in compiled.programs:
                    wanted = [key for key, _ in compiled.programs[name].outputs]
                    flushed = run(wide, name, nested({key: _wide(_flushed(value)) for key, value in given.items()}))
                    truths = ({key: np.asarray(truth[key]) for key in wanted} for truth in (made, flushed))
                    cases.extend(_segments(name, given, *truths))
                if name in ("measure", "encode", "share", "probe"):
                    made = {key: value + value[following] for key, value in made.items()}
                if is_last:
                    # What later phases of the step read is the state before it.
                    made = {key: value for key, value in made.items() if not key.startswith(("state.", "memory."))}
                known.update(made)
    return cases


def _following() -> np.ndarray:
    """For each row the next one of its segment, and for the last one the first."""
    rows, start = [], 0
    for _, count in SEGMENTS:
        rows.append(start + np.roll(np.arange(count), -1))
        start += count
    return np.concatenate(rows)


def _sizes(regimes: list[str], random: np.random.Generator, length: int) -> np.ndarray:
    """The size of each coordinate's gradient."""
    sizes = np.array([[SCALES.get(regime, 1.0)] for regime in regimes]) * np.ones(length)
    mixed = np.array([regime == "mixed" for regime in regimes])
    return np.where(mixed[:, None], 10 ** random.uniform(-8, 8, sizes.shape), sizes)


def _narrow(array: np.ndarray) -> np.ndarray:
    return array if array.dtype == np.bool_ else np.asarray(array, np.float32)


def _wide(array: np.ndarray) -> np.ndarray:
    return array if array.dtype == np.bool_ else np.asarray(array, np.float64)


def _flushed(array: np.ndarray) -> np.ndarray:
    """Zero in the place of denormal numbers."""
    return np.where(np.abs(array) < np.finfo(np.float32).tiny, array.dtype.type(0), array)


def _segments(
    name: str,
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    flushed: Mapping[str, np.ndarray],
) -> list[Case]:
    cases, start = [], 0
    for regime, rows in SEGMENTS:
        here = slice(start, start + rows)
        start += rows
        # What follows from a gradient that is not finite is not used; what must not follow from it is compared.
        wanted = [
            key for key in outputs if regime not in REFUSED or name in ("measure", "update") or key.startswith("state.")
        ]
        if wanted:
            given = {key: value[here] for key, value in inputs.items()}
            truths = (outputs, flushed) if regime == "denormal" else (outputs,)
            cases.append(
                Case(name, regime, given, tuple({key: truth[key][here] for key in wanted} for truth in truths))
            )
    return cases


def trajectory(
    cell: AbstractCell, random: np.random.Generator, steps: int, *, total_steps: int | None, kinds: int
) -> Trajectory:
    """A run over tensors of every kind, with gradients of every regime, that are refused twice.

    **Arguments:**

    - `cell`, `random`: the cell and what parameters and gradients are drawn from.
    - `steps`: how many.
    - `total_steps`: the horizon that the optimizer is told, or None.
    - `kinds`: how many of the kinds of tensors; each is a program of its own for a target that compiles.
    """
    length, sample = cell.chunk_length, cell.sample_chunks
    # Less than two chunks, fewer than are sampled, more than that. Few numbers of coordinates, as each is compiled.
    few, some, many = length + 3, 2 * (6 * length + 5), 3 * (length * sample + 5)
    # Shape, size of the parameters, regime: small parameters show the whole of an update, large ones its rounding.
    tensors: tuple[tuple[tuple[int, ...], float, str], ...] = (
        ((few,), 1e-3, ORDINARY),
        ((2, some // 2), 1e-3, ORDINARY),
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
    params = [np.asarray(random.normal(size=shape) * scale, np.float32) for shape, scale, _ in tensors]
    means = [random.normal(size=shape) for shape in shapes]
    sizes = [_sizes([regime], random, max(mean.size, 1)) for mean, (_, _, regime) in zip(means, tensors, strict=True)]
    grads = [
        [
            np.asarray(_gradient(random, mean, size, step, steps, regime), np.float32)
            for mean, size, (_, _, regime) in zip(means, sizes, tensors, strict=True)
        ]
        for step in range(steps)
    ]
    options: dict[str, Any] = {"lr": 1.0, "weight_decay": 0.01, "total_steps": total_steps}
    hyper = {name: float(value or 0) for name, value in options.items()}
    layout = Layout(shapes, length, sample)
    with jax.enable_x64(True):
        wide = widened(cell)

        @eqx.filter_jit
        def advance(param: jax.Array, grad: jax.Array, state: reference.OptimizerState) -> tuple[jax.Array, Any]:
            return reference.step(wide, layout, param, grad, state, **hyper)

        def packed(tensors: list[np.ndarray]) -> jax.Array:
            return reference.pack(layout, [jnp.asarray(tensor, jnp.float64) for tensor in tensors])

        param, state = packed(params), reference.init(wide, layout, jnp.float64)
        results = []
        for step_grads in grads:
            param, state = advance(param, packed(step_grads), state)
            results.append([np.asarray(value) for value in reference.unpack(layout, param)])
    return Trajectory(params, grads, results, options)


def _gradient(
    random: np.random.Generator, mean: np.ndarray, sizes: np.ndarray, step: int, steps: int, regime: str
) -> np.ndarray:
    """Noise around a fixed direction whose magnitude wanders; zeros at times, too large once, not finite once."""
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
