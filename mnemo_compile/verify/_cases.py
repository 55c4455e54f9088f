"""Inputs of phases in every regime, and the outputs that the cell computes from them in float64."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..cell import AbstractCell
from ..program import CompiledCell, phase, phase_inputs
from ..step import CARRIED, group_of, is_lasting, Phase, PHASES, ROLES
from ._regimes import gradient_sizes, ORDINARY, REFUSED, SPARSE
from ._wide import widened

SEGMENTS = (
    *((ORDINARY, rows) for rows in (1, 7, 1031)),
    *((regime, 7) for regime in ("zero", "huge", "tiny", "denormal", "mixed", SPARSE, *REFUSED)),
)
"""Regimes and numbers of rows at which phases are compared: one, odd, many."""
HISTORY = 3
"""Steps that the cell takes before the compared one, so that memory and state are not zero."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A phase, its inputs in float32, and the outputs of the cell in float64."""

    phase: str
    regime: str
    inputs: dict[str, np.ndarray]
    outputs: tuple[dict[str, np.ndarray], ...]
    """The right outputs. With denormal inputs there are two, as a compiler may treat denormal numbers as zero."""


def phase_cases(cell: AbstractCell, compiled: CompiledCell, random: np.random.Generator) -> list[Case]:
    """Cases of every compiled phase in every regime, after a few steps.

    Each row is the first chunk of a tensor with two chunks, and the next row of the regime is the second. Memory and
    state come from the earlier steps of the cell.
    """
    regimes = [regime for regime, rows in SEGMENTS for _ in range(rows)]
    count, length = len(regimes), cell.chunk_length
    shapes = phase_inputs(cell)
    valid = np.arange(length) < random.integers(1, length + 1, count)[:, None]
    env: dict[str, np.ndarray] = {
        "param": random.normal(size=(count, length)) * 10 ** random.uniform(-3, 0, (count, 1)) * valid,
        "valid": valid,
        "shape.coordinates": np.exp(random.uniform(1, 12, count)).astype(np.int64),
        "shape.matrix": random.integers(0, 2, count),
        "shape.aspect": np.exp(random.uniform(-3, 3, count)),
        "shape.role": random.integers(0, len(ROLES), count),
        "clock.step": np.where(random.random(count) < 0.2, 0, random.integers(HISTORY, 300, count)),
        "clock.total": random.choice([0.0, 1.0, 10.0, 1000.0], count),
        "hyper.lr": 10 ** random.uniform(0, 1.5, count),
        "hyper.weight_decay": random.uniform(0, 0.1, count),
        "finite": np.ones(count),
        **{f"memory.{slot.name}": np.zeros((count, *slot.row_shape(length))) for slot in cell.memory_slots},
        **{
            f"state.{name}": np.broadcast_to(value, (count, *value.shape))
            for name, value in cell.initial_state().items()
        },
    }
    run = eqx.filter_jit(phase)
    cases: list[Case] = []
    active = np.array([[regime != SPARSE] for regime in regimes]) | (np.arange(length) == 0)
    partners = _next_rows()
    refused = np.array([regime in REFUSED for regime in regimes])
    not_finite = np.array([regime == "not finite" for regime in regimes])
    with jax.enable_x64(True):
        wide = widened(cell)
        for step in range(HISTORY + 1):
            is_last = step == HISTORY
            # The steps before a refused one are ordinary.
            now = regimes if is_last else [ORDINARY if regime in REFUSED else regime for regime in regimes]
            sizes = gradient_sizes(now, random, length) * valid * 10 ** random.uniform(-0.3, 0.3, (count, 1))
            env["grad"] = random.normal(size=(count, length)) * sizes * active
            if is_last:
                broken = not_finite[:, None] & (random.random((count, length)) < 0.5)
                broken[:, 0] |= not_finite
                env["grad"] = np.where(broken, random.choice([np.nan, np.inf, -np.inf], broken.shape), env["grad"])
                env["finite"] = 1.0 - refused
            for name in shapes:
                inputs = {key: _narrow(env[key]) for key in shapes[name]}
                outputs = _run(run, wide, name, inputs)
                if is_last and name in compiled.programs:
                    keys = [key for key, _ in compiled.programs[name].outputs]
                    flushed = _run(run, wide, name, {key: _flushed(value) for key, value in inputs.items()})
                    truths = ({key: truth[key] for key in keys} for truth in (outputs, flushed))
                    cases.extend(_segments(PHASES[name], inputs, *truths))
                if PHASES[name].reduce is not None:
                    outputs = {key: value + value[partners] for key, value in outputs.items()}
                if is_last:
                    # Later phases of the step read the state before it.
                    outputs = {key: value for key, value in outputs.items() if group_of(key) not in CARRIED}
                env.update(outputs)
    return cases


def _run(run: Any, cell: AbstractCell, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a phase in float64."""
    outputs = run(cell, name, {key: _wide(value) for key, value in inputs.items()})
    return {key: np.asarray(value) for key, value in outputs.items()}


def _next_rows() -> np.ndarray:
    """For each row the index of the next row in its segment; the last row is followed by the first."""
    rows, start = [], 0
    for _, count in SEGMENTS:
        rows.append(start + np.roll(np.arange(count), -1))
        start += count
    return np.concatenate(rows)


def _narrow(array: np.ndarray) -> np.ndarray:
    return array if array.dtype == np.bool_ else np.asarray(array, np.float32)


def _wide(array: np.ndarray) -> np.ndarray:
    return array if array.dtype == np.bool_ else np.asarray(array, np.float64)


def _flushed(array: np.ndarray) -> np.ndarray:
    """Zero in the place of denormal numbers."""
    return np.where(np.abs(array) < np.finfo(np.float32).tiny, array.dtype.type(0), array)


def _segments(
    phase: Phase,
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    flushed: Mapping[str, np.ndarray],
) -> list[Case]:
    """A case for each regime."""
    cases, start = [], 0
    for regime, rows in SEGMENTS:
        segment = slice(start, start + rows)
        start += rows
        # In a refused step nothing uses the outputs, except those that the step carries on.
        keys = [key for key in outputs if regime not in REFUSED or is_lasting(phase, key)]
        if keys:
            rows = {key: value[segment] for key, value in inputs.items()}
            truths = (outputs, flushed) if regime == "denormal" else (outputs,)
            results = tuple({key: truth[key][segment] for key in keys} for truth in truths)
            cases.append(Case(phase.name, regime, rows, results))
    return cases
