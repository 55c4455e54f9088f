"""Verification: an artifact computes what the cell computes, or it is not written."""

import abc
from collections.abc import Mapping, Sequence

import numpy as np
import pydantic

from ..cell import AbstractCell
from ..errors import MnemoError
from ..frozen import AbstractDocument, FrozenCell
from ..program import CompiledCell
from ._cases import phase_cases, SEGMENTS, Trajectory, trajectory

STEP_BOUND = 1e-5
"""Largest relative error of a phase and of a step."""
DRIFT_BOUND = 1e-3
"""Largest relative error of a parameter tensor after the trajectory."""
ROUNDED_STEP_BOUND = 1e-3
ROUNDED_DRIFT_BOUND = 1e-2
"""The same for a cell that keeps state in bfloat16: what is rounded the other way once is remembered."""
FLIPS = 5e-3
"""Share of the numbers rounded to bfloat16 that may be the neighbour of the right one, their rounding being a matter of
an error within `STEP_BOUND`."""
STEPS = 100
OPEN_STEPS = 30
"""Of a second run, in which the optimizer is not told when it ends."""
TINY = 1e-30


class AbstractRollout(abc.ABC):
    """A training run in a target's own optimizer."""

    @abc.abstractmethod
    def step(self, grads: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Takes a step and returns the parameters after it."""


class AbstractArtifact(abc.ABC):
    """An exported optimizer, loaded."""

    @abc.abstractmethod
    def forms(self, name: str) -> tuple[str, ...]:
        """The names under which the artifact has a phase: its own, and maybe that of the same for a compiler."""

    @abc.abstractmethod
    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a form of a phase. Inputs that the artifact does not need are ignored."""

    @abc.abstractmethod
    def start(
        self, params: Sequence[np.ndarray], *, lr: float, weight_decay: float, total_steps: int | None
    ) -> AbstractRollout:
        """A run that starts from these parameters, through the public interface."""


class VerificationReport(AbstractDocument):
    """How far an artifact in float32 is from the cell in float64; the content of verification.json.

    Errors are ‖x − y‖ / ‖y‖ with y the cell's, to two digits.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True)

    target: str
    name: str
    version: str
    digest: str
    """Of the cell."""
    truth: str = "float64"
    phases: dict[str, float]
    """For each phase the largest error of any output, over all regimes and numbers of rows."""
    step_error: float
    """The largest error that a step adds to a parameter tensor, ‖Δx − Δy‖ / ‖y‖, over all steps, tensors and runs."""
    drift: float
    """The largest error of a parameter tensor after the last step of a run."""
    regimes: tuple[str, ...] = tuple(dict.fromkeys(regime for regime, _ in SEGMENTS))
    """Of the gradients."""
    rows: tuple[int, ...] = tuple(sorted({rows for _, rows in SEGMENTS}))
    """Numbers of rows at which phases were compared."""
    steps: int = STEPS
    """Of the longest run."""
    step_bound: float = STEP_BOUND
    drift_bound: float = DRIFT_BOUND

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
        if not self.step_error <= self.step_bound:
            return f"a step is off by {self.step_error:.1e} where {self.step_bound:.0e} is allowed"
        if not self.drift <= self.drift_bound:
            bound = f"{self.drift_bound:.0e} is allowed"
            return f"it has drifted by {self.drift:.1e} after {self.steps} steps where {bound}"
        return None

    def check(self, consequence: str) -> None:
        """Raises [`MnemoError`][] if the verification failed."""
        if self.failure is not None:
            raise MnemoError(
                f"the {self.target} export does not compute what the cell computes: {self.failure}; {consequence}"
            )


class Reference:
    """A cell and what it computes in float64, once for all the targets that are compared with it.

    **Arguments:**

    - `cell`: the cell.
    - `compiled`: what the targets were made of; phases are compared in the outputs that it has.
    - `seed`: of the inputs, parameters and gradients.
    - `steps`: length of the run whose end the optimizer knows.
    """

    def __init__(self, cell: AbstractCell, compiled: CompiledCell, *, seed: int = 0, steps: int = STEPS):
        random = np.random.default_rng(seed)
        self.rounded = {f"memory.{name}" for name, slot in compiled.memory_slots.items() if slot.dtype == "bfloat16"}
        """Outputs that are rounded to bfloat16."""
        self.cases = phase_cases(cell, compiled, random)
        self.trajectory = trajectory(cell, random, steps, total_steps=STEPS, kinds=11)
        self.open_trajectory = trajectory(cell, random, min(steps, OPEN_STEPS), total_steps=None, kinds=2)

    def compare(self, target: str, frozen: FrozenCell, artifact: AbstractArtifact) -> VerificationReport:
        """Runs everything in an artifact and measures the difference."""
        step_error, drift = self.run_errors(artifact)
        return VerificationReport(
            target=target,
            name=frozen.name,
            version=frozen.version,
            digest=frozen.digest,
            phases={name: _rounded(error) for name, error in self.phase_errors(artifact, target).items()},
            step_error=_rounded(step_error),
            drift=_rounded(drift),
            steps=len(self.trajectory.grads),
            step_bound=ROUNDED_STEP_BOUND if self.rounded else STEP_BOUND,
            drift_bound=ROUNDED_DRIFT_BOUND if self.rounded else DRIFT_BOUND,
        )

    def phase_errors(self, artifact: AbstractArtifact, target: str = "") -> dict[str, float]:
        """For each phase the largest error of any output in any case."""
        phases: dict[str, float] = {}
        for case in self.cases:
            for form in artifact.forms(case.phase):
                given = artifact.phase(form, case.inputs)
                missing = sorted(case.outputs[0].keys() - given.keys())
                if missing:
                    raise MnemoError(f"the {target} export's {form} lacks the output {missing[0]}")
                errors = [
                    min(self._error(key, given[key], truth[key]) for truth in case.outputs) for key in case.outputs[0]
                ]
                phases[form] = _worst([phases.get(form, 0.0), *errors])
        return phases

    def _error(self, name: str, given: np.ndarray, expected: np.ndarray) -> float:
        if name in self.rounded:
            given = _unflipped(given, expected)
        return _error(given, expected)

    def run_errors(self, artifact: AbstractArtifact) -> tuple[float, float]:
        """The largest error that a step adds, and that after the last step, over both runs."""
        errors = [trajectory_errors(artifact, history) for history in (self.trajectory, self.open_trajectory)]
        return max(step for step, _ in errors), max(drift for _, drift in errors)


def trajectory_errors(artifact: AbstractArtifact, history: Trajectory) -> tuple[float, float]:
    """The largest error that a step of a run adds to a parameter tensor, and that of a tensor after the last step."""
    rollout = artifact.start(history.params, **history.options)
    before, true_before = history.params, history.params
    worst = 0.0
    for grads, true_after in zip(history.grads, history.results, strict=True):
        after = rollout.step(grads)
        errors = [
            _distance(_wide(new) - old - (true_new - true_old), true_new)
            for new, old, true_new, true_old in zip(after, before, true_after, true_before, strict=True)
        ]
        worst = _worst([worst, *errors])
        before, true_before = after, true_after
    drift = _worst([_error(x, y) for x, y in zip(before, true_before, strict=True)])
    return worst, drift


def _unflipped(given: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """What is given, with the expected number in the place of its neighbours in bfloat16, if these are few."""
    if given.shape != expected.shape:
        return given
    spacing = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(expected), TINY))) - 7)
    with np.errstate(invalid="ignore"):
        flips = (given != expected) & (np.abs(_wide(given) - expected) <= 1.001 * spacing)
    return np.where(flips, expected, given) if flips.sum() <= max(2, FLIPS * flips.size) else given


def _error(given: np.ndarray, expected: np.ndarray) -> float:
    """‖x − y‖ / ‖y‖ over what is finite; infinite where not the same places are, or the shapes differ."""
    is_finite = np.isfinite(expected)
    if given.shape != expected.shape or np.any(np.isfinite(given) != is_finite):
        return np.inf
    x, y = (np.where(is_finite, _wide(array), 0.0) for array in (given, expected))
    return _distance(x - y, y)


def _distance(difference: np.ndarray, reference: np.ndarray) -> float:
    scale = float(np.linalg.norm(_wide(reference).reshape(-1)))
    return float(np.linalg.norm(_wide(difference).reshape(-1))) / (scale + TINY)


def _wide(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64)


def _worst(errors: Sequence[float]) -> float:
    """The largest, where not a number is larger than any."""
    return float(np.max(np.nan_to_num(errors, nan=np.inf)))


def _rounded(error: float) -> float:
    return float(f"{error:.1e}")
