"""Verification: an artifact computes what the cell computes, or it is not written."""

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from . import _step
from ._layout import Layout
from .cell import AbstractCell
from .errors import MnemoError
from .program import compile_cell, CompiledCell, nested, phase, phase_inputs, PHASES

STEP_BOUND = 1e-5
"""Largest relative error of a phase and of a step."""
DRIFT_BOUND = 1e-3
"""Largest relative error of a parameter tensor after the trajectory."""
STEPS = 100
ROWS = (1, 7, 130)
"""Numbers of rows at which phases are compared: one, odd, many."""
TINY = 1e-30


class AbstractRollout(abc.ABC):
    """A training run in a target's own optimizer."""

    @abc.abstractmethod
    def step(self, grads: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Takes a step and returns the parameters after it."""


class AbstractArtifact(abc.ABC):
    """An exported optimizer, loaded."""

    @abc.abstractmethod
    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a phase. Inputs that the artifact does not need are ignored."""

    @abc.abstractmethod
    def start(
        self, params: Sequence[np.ndarray], *, lr: float, weight_decay: float, total_steps: int
    ) -> AbstractRollout:
        """A run that starts from these parameters, through the public interface."""


@dataclasses.dataclass(frozen=True)
class VerificationReport:
    """How far an artifact is from the reference, in float32.

    **Arguments:**

    - `target`: such as `torch`.
    - `phases`: for each phase the largest relative error of any output, ‖x − y‖ / ‖y‖ with y the reference's.
    - `step_error`: the largest error that a step adds to a parameter tensor, ‖Δx − Δy‖ / ‖y‖, over all steps and
      tensors.
    - `drift`: the largest ‖x − y‖ / ‖y‖ of a parameter tensor after the last step.
    """

    target: str
    phases: dict[str, float]
    step_error: float
    drift: float

    @property
    def passed(self) -> bool:
        """Whether every figure is within its bound."""
        return self.failure is None

    @property
    def failure(self) -> str | None:
        """What is wrong, or None."""
        for name, error in self.phases.items():
            if not error <= STEP_BOUND:
                return f"its {name} is off by {error:.1e} where {STEP_BOUND:.0e} is allowed"
        if not self.step_error <= STEP_BOUND:
            return f"a step is off by {self.step_error:.1e} where {STEP_BOUND:.0e} is allowed"
        if not self.drift <= DRIFT_BOUND:
            return f"it has drifted by {self.drift:.1e} after {STEPS} steps where {DRIFT_BOUND:.0e} is allowed"
        return None

    def check(self) -> None:
        """Raises [`MnemoError`][] if the verification failed."""
        if self.failure is not None:
            raise MnemoError(
                f"the {self.target} export does not compute what the cell computes: {self.failure}; nothing was written"
            )

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {**dataclasses.asdict(self), "passed": self.passed}


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """The reference's run over a fixed history of gradients."""

    params: list[np.ndarray]
    grads: list[list[np.ndarray]]
    results: list[list[np.ndarray]]
    """The parameters after each step."""
    options: dict[str, Any]


class Reference:
    """A cell and what it computes, once for all the targets that are compared with it.

    **Arguments:**

    - `cell`: the cell.
    - `compiled`: what the targets were made of; phases are compared in the outputs that it has.
    - `seed`: of the inputs, parameters and gradients.
    - `steps`: length of the trajectory.
    """

    def __init__(self, cell: AbstractCell, compiled: CompiledCell, *, seed: int = 0, steps: int = STEPS):
        self.cases: list[tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]] = []
        random = np.random.default_rng(seed)
        for rows in ROWS:
            for name, inputs, expected in _phase_cases(cell, rows, random):
                if name in compiled.programs:
                    outputs = {key: expected[key] for key, _ in compiled.programs[name].outputs}
                    self.cases.append((name, inputs, outputs))
        self.trajectory = _trajectory(cell, random, steps)

    def compare(self, target: str, artifact: AbstractArtifact) -> VerificationReport:
        """Runs everything in an artifact and measures the difference."""
        phases: dict[str, float] = {name: 0.0 for name, _, _ in self.cases}
        for name, inputs, expected in self.cases:
            given = artifact.phase(name, inputs)
            if given.keys() != expected.keys():
                raise MnemoError(f"the {target} export's {name} has outputs {sorted(given)}, not {sorted(expected)}")
            errors = [_distance(given[key] - expected[key], expected[key]) for key in expected]
            phases[name] = _worst([phases[name], *errors])
        return VerificationReport(target, phases, *self._run(artifact))

    def _run(self, artifact: AbstractArtifact) -> tuple[float, float]:
        history = self.trajectory
        rollout = artifact.start(history.params, **history.options)
        before, true_before = history.params, history.params
        worst, drift = 0.0, 0.0
        for grads, true_after in zip(history.grads, history.results, strict=True):
            after = rollout.step(grads)
            errors = [
                _distance((new - old) - (true_new - true_old), true_new)
                for new, old, true_new, true_old in zip(after, before, true_after, true_before, strict=True)
            ]
            worst = _worst([worst, *errors])
            before, true_before = after, true_after
        drift = _worst([_distance(x - y, y) for x, y in zip(before, true_before, strict=True)])
        return worst, drift


def verify(cell: AbstractCell, target: str, artifact: AbstractArtifact) -> VerificationReport:
    """Compares an artifact with its cell."""
    return Reference(cell, compile_cell(cell)).compare(target, artifact)


def _distance(difference: np.ndarray, reference: np.ndarray) -> float:
    scale = float(np.linalg.norm(np.asarray(reference, np.float64).reshape(-1)))
    return float(np.linalg.norm(np.asarray(difference, np.float64).reshape(-1))) / (scale + TINY)


def _worst(errors: Sequence[float]) -> float:
    """The largest, where not a number is larger than any."""
    return float(np.max(np.nan_to_num(errors, nan=np.inf)))


def _phase_cases(
    cell: AbstractCell, rows: int, random: np.random.Generator
) -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Each phase with inputs of a training step: random where they are free, else what the phases before it gave."""
    coordinates = np.exp(random.uniform(1, 12, rows)).astype(np.int32).astype(np.float32)
    known: dict[str, Any] = {
        "facts.coordinates": coordinates,
        "facts.matrix": random.integers(0, 2, rows).astype(np.float32),
        "facts.aspect": np.exp(random.uniform(-3, 3, rows)).astype(np.float32),
        "clock.step": random.integers(0, 300, rows).astype(np.float32),
        "clock.total": random.choice([0.0, 10.0, 1000.0], rows).astype(np.float32),
        "hyper.lr": random.uniform(0.5, 30, rows).astype(np.float32),
        "hyper.weight_decay": random.uniform(0, 0.1, rows).astype(np.float32),
        "guard.finite": np.ones(rows, np.float32),
    }
    shapes = phase_inputs(cell)
    lengths = random.integers(1, cell.chunk_length + 1, rows)
    valid = np.arange(cell.chunk_length) < lengths[:, None]
    for name in PHASES:
        for key, shape in shapes[name].items():
            if key not in known:
                value = random.normal(size=(rows, *shape.shape[1:]))
                if key == "valid":
                    known[key] = valid
                elif key in ("param", "grad") or key.startswith("memory."):
                    known[key] = (np.abs(value) if key == "memory.square" else value).astype(np.float32) * valid
                else:
                    # Normalisers and levels of the state are positive.
                    known[key] = (np.abs(value) + 0.5).astype(np.float32)
        inputs = {key: np.asarray(known[key]) for key in shapes[name]}
        outputs = eqx.filter_jit(phase)(cell, name, nested(inputs))
        expected = {key: np.asarray(value) for key, value in outputs.items()}
        yield name, inputs, expected
        if name != "update":
            known.update((key, value) for key, value in expected.items() if not key.startswith("state."))


def _trajectory(cell: AbstractCell, random: np.random.Generator, steps: int) -> Trajectory:
    """A run over a scalar, a vector, a prime number of coordinates, matrices and a tensor larger than the sample."""
    length, sample = cell.chunk_length, cell.sample_chunks
    large = (3, length * sample + 5)
    shapes = ((), (7,), (length * 2 + 3,), (101,), (24, 18), large)
    # Small ones show the whole of an update, large ones its rounding.
    scales = (1.0, 1e-3, 1.0, 1e-2, 1e-3, 0.05)
    params = [
        np.asarray(random.normal(size=shape) * scale, np.float32) for shape, scale in zip(shapes, scales, strict=True)
    ]
    drift = [random.normal(size=shape) for shape in shapes]
    grads = [
        [np.asarray(_gradient(random, mean, step, steps), np.float32).reshape(mean.shape) for mean in drift]
        for step in range(steps)
    ]
    options = {"lr": 1.0, "weight_decay": 0.01, "total_steps": steps}
    layout = Layout(shapes, length, sample)
    state = _step.init(cell, layout)

    @eqx.filter_jit
    def advance(param: jax.Array, grad: jax.Array, state: _step.OptimizerState) -> tuple[jax.Array, Any]:
        return _step.step(cell, layout, param, grad, state, **{key: float(value) for key, value in options.items()})

    param = _step.pack(layout, [jnp.asarray(value) for value in params])
    results = []
    for step_grads in grads:
        param, state = advance(param, _step.pack(layout, [jnp.asarray(grad) for grad in step_grads]), state)
        results.append([np.asarray(value) for value in _step.unpack(layout, param)])
    return Trajectory(params, grads, results, options)


def _gradient(random: np.random.Generator, mean: np.ndarray, step: int, steps: int) -> np.ndarray:
    """Noise around a fixed direction whose magnitude wanders; zeros at times, and not finite once."""
    grad = (0.3 * mean + random.normal(size=mean.shape)) * 10 ** (2 * np.sin(step / 9) - 2)
    if step % 17 == 11:
        grad = np.zeros(mean.shape)
    elif step % 5 == 2:
        grad = np.where(random.random(mean.shape) < 0.8, 0.0, grad)
    if step == steps // 3:
        grad = np.where(random.random(mean.shape) < 0.5, np.inf, grad) * np.nan
    return grad
