"""Inputs of phases in every regime, and the outputs that the cell computes from them in float64."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..cell import AbstractCell
from ..program import CompiledCell, nested, phase, phase_inputs
from ..step import CARRIED, group_of, is_lasting, OF_PARTS, Phase, PHASES, ROLES, tile_slots, TILED
from ..step.reference import composition
from ._regimes import gradient_sizes, ORDINARY, REFUSED, SPARSE
from ._wide import jit_few_runs, widened

SEGMENTS = (
    *((ORDINARY, rows) for rows in (1, 7, 1031)),
    *((regime, 7) for regime in ("zero", "huge", "tiny", "denormal", "mixed", SPARSE, *REFUSED)),
)
"""Regimes and numbers of rows at which phases are compared: one, odd, many."""
HISTORY = 3
"""Steps that the cell takes before the compared one, so that memory and state are not zero."""
TILES = ((1, 1), (1, 6), (5, 5), (3, 16))
"""Rows and columns of the tiles at which phases over tiles are compared. The largest tile of the cell is another."""
MATRIX = "matrix"
"""Name of what polar factors are taken of, among the outputs."""
TINY_TILES = 1e-25
"""The size of tiny gradients in tiles. Their squares are zero in float32, so that the norm needs a scale."""
TILE_ROWS = 3
"""Tiles of each regime, at most."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A phase, its inputs in float32, and the outputs of the cell in float64."""

    phase: str
    regime: str
    inputs: dict[str, np.ndarray]
    outputs: tuple[dict[str, np.ndarray], ...]
    """The right outputs. With denormal inputs there are two, as a compiler may treat denormal numbers as zero."""
    matrices: tuple[np.ndarray, ...] | None = None
    """For polar factors, what they are the factors of, beside each of the outputs."""

    def first(self, rows: int | None) -> "Case":
        """The case with so many rows at most."""
        if rows is None:
            return self
        return dataclasses.replace(
            self,
            inputs={key: value[:rows] for key, value in self.inputs.items()},
            outputs=tuple({key: value[:rows] for key, value in outputs.items()} for outputs in self.outputs),
            matrices=self.matrices and tuple(matrices[:rows] for matrices in self.matrices),
        )


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
        "shape.area": np.exp(random.uniform(1, 12, count)).astype(np.int64),
        "shape.run": np.exp(random.uniform(1, 6, count)).astype(np.int64),
        "shape.matrix": random.integers(0, 2, count),
        "shape.aspect": np.exp(random.uniform(-3, 3, count)),
        "shape.role": random.integers(0, len(ROLES), count),
        "clock.step": np.where(random.random(count) < 0.2, 0, random.integers(HISTORY, 300, count)),
        "clock.total": random.choice([0.0, 1.0, 10.0, 1000.0], count),
        "hyper.lr": 10 ** random.uniform(0, 1.5, count),
        "hyper.weight_decay": random.uniform(0, 30, count),
        "hyper.pretrained": random.integers(-1, 2, count),
        "finite": np.ones(count),
        **{f"memory.{slot.name}": np.zeros((count, *slot.row_shape(length))) for slot in cell.memory_slots},
        **{
            f"state.{name}": np.broadcast_to(value, (count, *value.shape))
            for name, value in cell.initial_state().items()
        },
    }
    run = jit_few_runs(phase)
    cases: list[Case] = []
    active = np.array([[regime != SPARSE] for regime in regimes]) | (np.arange(length) == 0)
    partners = _next_rows()
    refused = np.array([regime in REFUSED for regime in regimes])
    tile_shapes = dict.fromkeys((*TILES, (cell.tile, cell.tile))) if cell.tile else ()
    tiles = [_Tiles(cell, shape, random) for shape in tile_shapes]
    with jax.enable_x64(True):
        wide = widened(cell)
        for step in range(HISTORY + 1):
            is_last = step == HISTORY
            # The steps before a refused one are ordinary.
            now = regimes if is_last else [ORDINARY if regime in REFUSED else regime for regime in regimes]
            sizes = gradient_sizes(now, random, length) * valid * 10 ** random.uniform(-0.3, 0.3, (count, 1))
            env["grad"] = _broken(random.normal(size=(count, length)) * sizes * active, now, random)
            for each in tiles:
                each.draw(now, random)
            if is_last:
                env["finite"] = 1.0 - refused
            for name in shapes:
                each_phase = PHASES[name]
                if each_phase.rows == "tiles":
                    for each in tiles:
                        inputs = each.inputs(shapes[name], env)
                        outputs = _run(run, wide, name, inputs)
                        if is_last and name in compiled.programs:
                            cases.extend(_compared(run, wide, compiled, each_phase, inputs, outputs, each.segments))
                        each.env.update(outputs)
                    continue
                inputs = {key: _narrow(env[key]) for key in shapes[name]}
                if cell.tile and each_phase.rows == "chunks" and each_phase.reduce is None:
                    inputs["shape.role"] = _without_tiles(inputs["shape.role"])
                outputs = _run(run, wide, name, inputs)
                if is_last and name in compiled.programs:
                    cases.extend(_compared(run, wide, compiled, each_phase, inputs, outputs, SEGMENTS))
                if each_phase.reduce is not None:
                    outputs = {key: value + value[partners] for key, value in outputs.items()}
                if is_last:
                    # Later phases of the step read the state before it.
                    outputs = {key: value for key, value in outputs.items() if group_of(key) not in CARRIED}
                env.update(outputs)
    return cases


class _Tiles:
    """Tiles of one shape, a few of each regime, whose tensors are rows of the chunks' environment."""

    def __init__(self, cell: AbstractCell, shape: tuple[int, int], random: np.random.Generator):
        self.shape = shape
        self.segments = tuple((regime, min(rows, TILE_ROWS)) for regime, rows in SEGMENTS)
        starts = np.cumsum([0, *(rows for _, rows in SEGMENTS)])
        ranges = [start + np.arange(rows) for start, (_, rows) in zip(starts, self.segments, strict=False)]
        self.rows = np.concatenate(ranges)
        """The row of each tile's tensor."""
        count = len(self.rows)
        self.env: dict[str, np.ndarray] = {
            "param": random.normal(size=(count, *shape)) * 10 ** random.uniform(-3, 0, (count, 1, 1)),
            "tile.side": random.integers(1, 2 * shape[1] + 1, count),
            **{f"memory.{slot.name}": np.zeros((count, *shape)) for slot in tile_slots(cell.memory_slots)},
        }

    def draw(self, regimes: Sequence[str], random: np.random.Generator) -> None:
        """Draws the gradients of a step."""
        now: list[str] = [str(regimes[int(row)]) for row in self.rows]
        shape = (len(now), *self.shape)
        sizes = gradient_sizes(now, random, math.prod(self.shape)).reshape(shape)
        is_tiny = np.array([regime == "tiny" for regime in now])[:, None, None]
        grad = random.normal(size=shape) * np.where(is_tiny, TINY_TILES, sizes)
        first = np.arange(math.prod(self.shape)).reshape(self.shape) == 0
        active = np.array([regime != SPARSE for regime in now])[:, None, None] | first
        self.env["grad"] = _broken(grad * active, now, random)

    def inputs(self, names: Iterable[str], rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inputs of a phase: those of tiles, and the rows of their tensors."""
        return {
            name: _narrow(self.env[name] if group_of(name) in OF_PARTS else rows[name][self.rows]) for name in names
        }


def _broken(grads: np.ndarray, regimes: Sequence[str], random: np.random.Generator) -> np.ndarray:
    """The gradients with some that are not finite, in the regime that asks for them."""
    flat = grads.reshape(len(grads), -1)
    is_broken = np.array([[regime == "not finite"] for regime in regimes])
    places = is_broken & (random.random(flat.shape) < 0.5)
    places[:, :1] |= is_broken
    return np.where(places, random.choice([np.nan, np.inf, -np.inf], places.shape), flat).reshape(grads.shape)


def _compared(
    run: Any,
    cell: AbstractCell,
    compiled: CompiledCell,
    phase: Phase,
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    segments: Sequence[tuple[str, int]],
) -> list[Case]:
    """A case for each regime, with the outputs that the compiled phase has."""
    keys = [key for key, _ in compiled.programs[phase.name].outputs]
    flushed = {key: _flushed(value) for key, value in inputs.items()}
    truths = [outputs, _run(run, cell, phase.name, flushed)]
    if "direction" in phase.gives:
        for truth, each in zip(truths, (inputs, flushed), strict=True):
            truth[MATRIX] = _matrices(cell, each)
        keys = [*keys, MATRIX]
    return _segments(phase, segments, inputs, *({key: truth[key] for key in keys} for truth in truths))


@jit_few_runs
def _composed(cell: AbstractCell, inputs: Mapping[str, np.ndarray]) -> jax.Array:
    return composition(cell, nested(inputs)).matrix


def _matrices(cell: AbstractCell, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """What polar factors are taken of, in float64."""
    return np.asarray(_composed(cell, {key: _wide(value) for key, value in inputs.items()}))


def _run(run: Any, cell: AbstractCell, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a phase in float64."""
    outputs = run(cell, name, {key: _wide(value) for key, value in inputs.items()})
    return {key: np.asarray(value) for key, value in outputs.items()}


def _without_tiles(roles: np.ndarray) -> np.ndarray:
    """The roles, with that of vectors in the place of those whose tensors have tiles."""
    is_tiled = np.isin(roles, [ROLES.index(role) for role in TILED])
    return np.where(is_tiled, roles.dtype.type(ROLES.index("vector")), roles)


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
    segments: Sequence[tuple[str, int]],
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    flushed: Mapping[str, np.ndarray],
) -> list[Case]:
    """A case for each regime."""
    cases, start = [], 0
    for regime, rows in segments:
        segment = slice(start, start + rows)
        start += rows
        # In a refused step nothing uses the outputs, except those that the step carries on.
        keys = [key for key in outputs if regime not in REFUSED or is_lasting(phase, key)]
        if keys:
            rows = {key: value[segment] for key, value in inputs.items()}
            truths = (outputs, flushed) if regime == "denormal" else (outputs,)
            results = [{key: truth[key][segment] for key in keys} for truth in truths]
            matrices = tuple(result.pop(MATRIX) for result in results) if MATRIX in keys else None
            cases.append(Case(phase.name, regime, rows, tuple(results), matrices))
    return cases
